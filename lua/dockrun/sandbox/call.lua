--- Runs a stranger's function, such as a hook: in a task of its own, under limits. It comes to an end whatever it does,
--- and what it raised is a message.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class CallLimits
---@field timeout number        seconds that it may take
---@field instructions integer  of Lua, its own and those of the tasks that it spawns; for these, in each `period`
---@field memory number         MB
---@field seconds number        of the processor, in each `period`
---@field period number         seconds

local GRACE = 1  -- seconds that it has to tidy up once it was told to end

-- What an error or a reason says. Called under the limits: it may be a stranger's __tostring that answers.
local function text(value)
  if value == nil then return "an error that says nothing (nil)" end
  local meta = getmetatable(value)
  if type(value) == "table" and (type(meta) ~= "table" or not meta.__tostring) then return "an error that is a table, not a message" end
  local ok, words = pcall(tostring, value)
  return ok and words or ("an error that is a %s, and cannot say what it means"):format(type(value))
end

-- Whether it returned; its first two results, of which the second is a reason, or what it raised.
local function outcome(ok, value, reason)
  if not ok then return false, text(value) end
  return true, value, reason ~= nil and text(reason) or nil
end

-- Unless it went well, the task ends however its caller leaves, and with it those that it spawned.
local function ending(task)
  return setmetatable({ well = false }, { __close = function(self)
    if self.well then return end
    task:cancel()
    pcall(task.await, task, GRACE)
    task:kill()
    pcall(task.await, task)
  end })
end

--- Calls fn. Raises only where the caller itself is cancelled, which ends the function too.
---@param limits CallLimits
---@param fn function
---@return boolean ok
---@return any value        its first result; where not ok, what happened: "failed: …" or "took more than …"
---@return string? reason   its second result as text
function M.call(limits, fn, ...)
  local task = runtime.spawn(function(...)
    runtime.limit(limits)
    return outcome(pcall(fn, ...))
  end, ...)
  local scope <close> = ending(task)
  local ended, ok, value, reason = pcall(task.await, task, limits.timeout)
  if not ended and type(ok) ~= "string" then error(ok, 0) end  -- what a limit raises is text: the caller was cancelled
  if not ended then return false, "failed: " .. ok end
  if task:status() ~= "done" then return false, ("took more than %g s"):format(limits.timeout) end
  if not ok then return false, "failed: " .. value end
  scope.well = true
  return true, value, reason
end

return M
