--- Runs a stranger's function, such as a hook: in a task of its own, under limits. It comes to an end whatever it does,
--- and what it raised is a message.
require "dockrun.patterns"
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

-- The function's first two results; the second, a reason, as text.
local function answer(ok, value, reason)
  if not ok then error(text(value), 0) end
  return value, reason ~= nil and text(reason) or nil
end

-- However its caller leaves, the task ends, and with it those that it spawned.
local function ending(task)
  return setmetatable({}, { __close = function()
    if task:status() == "done" then return end
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
    return answer(pcall(fn, ...))
  end, ...)
  local _ <close> = ending(task)
  local ok, value, reason = pcall(task.await, task, limits.timeout)
  if not ok and type(value) ~= "string" then error(value, 0) end  -- all that comes from the function is text
  if not ok then return false, "failed: " .. value end
  if task:status() ~= "done" then return false, ("took more than %g s"):format(limits.timeout) end
  return true, value, reason
end

return M
