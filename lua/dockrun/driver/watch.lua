-- Watching: one stream of the engine's events for all containers of this process, whatever their number.
-- After a break it goes on with `since` where it stopped, and every watched container is looked at anew: nothing that
-- happened in between is missed.
local runtime = require "dockrun.core.runtime"
local queue = require "dockrun.core.queue"

local M = {}

---@class Watch
---@field engine table
---@field containers table<string, table>  queues by container id
---@field since? string  the engine's time of the last event seen
---@field lost? fun(err: table)   told when the stream breaks
---@field found? fun()            told when it is back
local Watch = {}
Watch.__index = Watch

---@param engine table
---@return Watch
function M.new(engine) return setmetatable({ engine = engine, containers = {} }, Watch) end

-- Events that tell how a container fares; the rest (exec_create and so on) is of no use here.
local actions = { "start", "die", "oom", "kill", "stop", "pause", "unpause", "destroy", "health_status" }

local function deliver(self, event, text)
  -- timeNano is past what a double holds exactly: taken from the text.
  local seconds, nanoseconds = text:match '"timeNano":(%d+)(%d%d%d%d%d%d%d%d%d)%D'
  if seconds then self.since = seconds .. "." .. nanoseconds end
  local listener = event.Actor and self.containers[event.Actor.ID]
  if listener then listener:push { action = event.Action, attributes = event.Actor.Attributes or {} } end
end

local function open(self)
  return self.engine:events { since = self.since, filters = { type = { "container" }, event = actions }, timeout = 30 }
end

local function follow(self, stream)
  local events <close> = stream
  for _, listener in pairs(self.containers) do listener:push { action = "resync" } end
  while true do
    local event, text = events:read()
    if not event then return text or runtime.error("unreachable", "the engine closed its event stream") end
    deliver(self, event, text)
  end
end

local function run(self)
  local pause, broken = 0.1, false
  while true do
    local stream, err = open(self)
    if stream then
      if broken and self.found then self.found() end
      pause, broken = 0.1, false
      self.ready:push(true)
      err = follow(self, stream)
    end
    if not broken and self.lost then self.lost(err) end
    broken = true
    if next(self.containers) then
      for _, listener in pairs(self.containers) do listener:push { action = "lost", err = err } end
    end
    runtime.sleep(pause)
    pause = math.min(pause * 2, 5)
  end
end

--- Begins to watch. Returns once the stream is open, so that nothing started afterwards is missed.
---@return true? ok
---@return table? err  the engine cannot be reached
function Watch:start()
  local ping, err = self.engine:system_ping { timeout = 10 }
  if not ping then return nil, err end
  self.ready = queue.new()
  self.task = runtime.spawn(run, self)
  local ok
  ok, err = self.ready:pop(30)
  return ok, err
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
