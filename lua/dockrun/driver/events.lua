--- One stream of the engine's events for all containers of this process. After a break it is opened again from the last
--- event on, and every watched container gets a "resync": its watcher inspects it, so that nothing is missed. An engine drops
--- events if they are read too slowly, and a connection can be dead without an end: therefore one call every 30 seconds asks
--- which containers run.
local retry = require "dockrun.driver.retry"
local try = require "dockrun.util.try"
local runtime = require "dockrun.core.runtime"
local queue = require "dockrun.core.queue"

local M = {}

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5  -- seconds, before the stream is opened again

---@class Watch
---@field engine table
---@field containers table<string, table>  queues by container id
---@field interval number  seconds between two lists of the running containers
---@field patience number  seconds that the stream may take to open
---@field since? string  the engine's time of the last event seen
---@field broken? table   the error that ended the stream, until it is open again
---@field lost? fun(err: table)   called when the stream breaks
---@field found? fun()            called when it is open again
local Watch = {}
Watch.__index = Watch

---@param engine table
---@param opts? { interval?: number, patience?: number }  seconds: 30, 60
---@return Watch
function M.new(engine, opts)
  opts = opts or {}
  return setmetatable({ engine = engine, interval = opts.interval or 30, patience = opts.patience or 60, containers = {} }, Watch)
end

-- The events of a container's life. Podman's filter calls one `died`, its event `die`.
local actions = { "start", "die", "died", "oom", "kill", "stop", "pause", "unpause", "destroy", "remove", "health_status" }

local function deliver(self, event)
  local nano = event.timeNano
  if math.type(nano) == "integer" and nano > 0 then self.since = ("%d.%09d"):format(nano // 1000000000, nano % 1000000000) end
  local actor = event.Actor or {}
  local listener = event.Action and self.containers[actor.ID or ""]
  if listener then listener:push { action = event.Action, attributes = actor.Attributes or {} } end
end

local function open(self)
  return self.engine:events {
    since = self.since, filters = { type = { "container" }, event = actions }, timeout = self.patience,
  }
end

-- Sends a resync to the watchers of all containers that do not run.
local function find_ended(self)
  local containers, err = self.engine:container_list { filters = { status = { "running", "paused", "restarting" } } }
  if not containers then return nil, err end
  local run = {}
  for _, container in ipairs(containers) do run[container.Id or ""] = true end
  for id, listener in pairs(self.containers) do
    if not run[id] then listener:push { action = "resync" } end
  end
  return true
end

local function follow(self, stream)
  local events <close> = stream
  local due = runtime.now() + self.interval
  for _, listener in pairs(self.containers) do listener:push { action = "resync" } end
  while true do
    local event, err = events:read(math.max(due - runtime.now(), 0))
    if event then
      deliver(self, event)
    elseif not err or err.kind ~= "timeout" then
      return err or runtime.error("unreachable", "the engine closed its event stream")
    end
    if runtime.now() >= due then
      local ok, why = find_ended(self)
      if not ok then return why end
      due = runtime.now() + self.interval
    end
  end
end

-- Follows one stream until it breaks.
local function listen(self, stream)
  local err
  if not stream then stream, err = open(self) end
  if not stream then return nil, err end
  if self.broken and self.found then self.found() end
  self.broken = nil
  return nil, follow(self, stream)
end

local function run(self, stream)
  local pause = SHORTEST_PAUSE
  while true do
    local since = runtime.now()
    local _, err = try(listen, self, stream)
    stream = nil
    if runtime.now() - since > LONGEST_PAUSE then pause = SHORTEST_PAUSE end  -- otherwise it breaks each time
    if not self.broken and self.lost then try(self.lost, err) end
    self.broken = err
    for _, listener in pairs(self.containers) do listener:push { action = "lost", err = err } end
    runtime.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

-- Whether a retry may open the stream. A server that does not speak the protocol at first is no engine.
local function may_open(err) return retry.is_transient(err) and err.kind ~= "protocol" end

--- Starts watching. Returns when the stream is open, so that no later event is missed.
---@return true? ok
---@return table? err  the engine cannot be reached
function Watch:start()
  local stream, err = self.engine:system_ping { timeout = 10 }
  if stream then stream, err = retry.call(function() return open(self) end, may_open) end
  if not stream then return nil, err end
  self.task = runtime.spawn(run, self, stream)
  return true
end

function Watch:stop()
  if self.task then self.task:cancel() end
  self.task = nil
end

--- A queue of a container's events: {action, attributes}. `action` is the engine's; or "resync" after a break: inspect the
--- container; or "lost": the engine does not answer at present.
---@param id string
---@return table queue
function Watch:add(id)
  local listener = queue.new()
  self.containers[id] = listener
  return listener
end

---@param id string
function Watch:remove(id) self.containers[id] = nil end

return M
