-- dockrun.core.runtime and dockrun.core.queue as a process of a simulated world has them.
local real = require "dockrun.core.runtime"

local M = {}

---@param sched Scheduler
---@param process table
---@return table runtime
---@return table queue
function M.new(sched, process)
  local runtime = {
    version = real.version, error = real.error,
    spawn = function(fn, ...) return sched:spawn(process, fn, ...) end,
    sleep = function(seconds) sched:sleep(seconds) end,
    current = function() return sched.current end,
    now = function() return sched.time end,
    clock = function() return 1700000000 + math.floor(sched.time), math.floor(sched.time % 1 * 1e9) end,
    limit = function() end,
  }

  local Queue = {}
  Queue.__index = Queue

  function Queue:push(value)
    if self.closed then return false end
    self.values[#self.values + 1] = value
    local wait = table.remove(self.poppers, 1)
    if wait then sched:wake(wait, "woken") end
    return true
  end

  function Queue:pop(timeout)
    local deadline = timeout and sched.time + timeout
    while true do
      if #self.values > 0 then return table.remove(self.values, 1) end
      if self.closed then return nil end
      if deadline and sched.time >= deadline then return nil, real.error("timeout", "nothing came in time") end
      local wait
      local ok, why = pcall(sched.wait, sched, deadline and deadline - sched.time, function(made)
        wait = made
        table.insert(self.poppers, made)
      end)
      for i, one in ipairs(self.poppers) do
        if one == wait then table.remove(self.poppers, i) break end
      end
      -- Woken for a value, and then cancelled before it could be taken: the next in line gets it.
      if not ok then
        if #self.values > 0 and self.poppers[1] then sched:wake(table.remove(self.poppers, 1), "woken") end
        error(why, 0)
      end
    end
  end

  function Queue:close()
    self.closed = true
    for _, wait in ipairs(self.poppers) do sched:wake(wait, "woken") end
    self.poppers = {}
  end

  local queue = { new = function() return setmetatable({ values = {}, poppers = {} }, Queue) end }
  return runtime, queue
end

return M
