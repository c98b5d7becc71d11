-- Watching: one stream of the engine's events for all containers of this process, whatever their number.
-- After a break it goes on with `since` where it stopped, and every watched container is looked at anew: nothing that
-- happened in between is missed. An engine drops events for who reads too slowly, and a connection can be dead without
-- an end: so now and then one call asks which containers run, for all.
local retry = require "dockrun.driver.retry"
local try = require "dockrun.util.try"
local runtime = require "dockrun.core.runtime"
local queue = require "dockrun.core.queue"

local M = {}

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5  -- seconds, before it is opened again

---@class Watch
---@field engine table
---@field containers table<string, table>  queues by container id
---@field interval number  seconds between two looks
---@field patience number  seconds that the stream may take to open
---@field since? string  the engine's time of the last event seen
---@field broken? table   the error that ended the stream, until it is open again
---@field lost? fun(err: table)   told when the stream breaks
---@field found? fun()            told when it is back
local Watch = {}
Watch.__index = Watch

---@param engine table
---@param opts? { interval?: number, patience?: number }  seconds: 30, 60
---@return Watch
function M.new(engine, opts)
  opts = opts or {}
  return setmetatable({ engine = engine, interval = opts.interval or 30, patience = opts.patience or 60, containers = {} }, Watch)
end

-- Events that tell how a container fares; the rest (exec_create and so on) is of no use here. Podman's filter knows `died`
-- and `remove`, which its events call `die` and `remove`.
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

-- Those that are watched and do not run are looked at by who watches them.
local function look(self)
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
      local ok, why = look(self)
      if not ok then return why end
      due = runtime.now() + self.interval
    end
  end
end

-- One stream, until it breaks.
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
    if runtime.now() - since > LONGEST_PAUSE then pause = SHORTEST_PAUSE end  -- else it breaks each time
    if not self.broken and self.lost then try(self.lost, err) end
    self.broken = err
    for _, listener in pairs(self.containers) do listener:push { action = "lost", err = err } end
    runtime.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

-- Whether another try may open the stream. What speaks no protocol of ours at first is no engine.
local function may_open(err) return retry.is_transient(err) and err.kind ~= "protocol" end

--- Begins to watch. Returns once the stream is open, so that nothing started afterwards is missed.
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

--- A queue of what happens to a container: {action, attributes}. `action` is the engine's; or "resync" after a break:
--- look at the container; or "lost": the engine cannot be heard for now.
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
