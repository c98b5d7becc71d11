-- dockrun.core.runtime and dockrun.core.queue for a process of a simulated world.
local real = require "dockrun.core.runtime"

local M = {}

-- The world's beginning, in seconds since 1970.
M.EPOCH = 1700000000

---@param sched Scheduler
---@param process table
---@return table runtime
function M.new(sched, process)
  return {
    version = real.version, error = real.error, ignore_hangup = function() end,
    spawn = function(fn, ...) return sched:spawn(process, fn, ...) end,
    spawn_free = function(fn, ...)
      local fiber = sched:spawn(process, fn, ...)
      fiber.budget = nil
      return fiber
    end,
    sleep = function(seconds) sched:wait(seconds) end,
    current = function() return sched.current end,
    now = function() return sched.time end,
    clock = function() return M.EPOCH + math.floor(sched.time), math.floor(sched.time % 1 * 1e9) end,
    limit = function() sched.current.budget = {} end,
  }
end

local Queue = {}
Queue.__index = Queue

function Queue:push(value)
  assert(value ~= nil, "a queue holds no nil")
  if self.closed then return false end
  self.values[#self.values + 1] = value
  local wait = table.remove(self.poppers, 1)
  if wait then self.sched:wake(wait, "woken") end
  return true
end

local function leave(self, wait)
  for i, one in ipairs(self.poppers) do
    if one == wait then return table.remove(self.poppers, i) end
  end
end

function Queue:pop(timeout)
  local sched = self.sched
  local deadline = timeout and sched.time + timeout
  while true do
    if #self.values > 0 then return table.remove(self.values, 1) end
    if self.closed then return nil end
    if deadline and sched.time >= deadline then return nil, real.error("timeout", "nothing came through the queue in time") end
    local wait
    local ok, why = pcall(sched.wait, sched, deadline and deadline - sched.time, function(made)
      wait = made
      table.insert(self.poppers, made)
    end)
    if not ok or why ~= "woken" then leave(self, wait) end
    if not ok then error(why, 0) end
  end
end

function Queue:close()
  self.closed = true
  for _, wait in ipairs(self.poppers) do self.sched:wake(wait, "woken") end
  self.poppers = {}
end

Queue.__close = Queue.close
function Queue:__len() return #self.values end

---@param sched Scheduler
---@return table queue  the module
function M.queue(sched)
  return { new = function() return setmetatable({ sched = sched, values = {}, poppers = {} }, Queue) end }
end

return M
