--- Calls one untrusted function, such as a hook, in a fiber of its own and under a budget.
---
--- Guarantees: the call ends within `timeout` and a second of grace, whatever the function does; what it spawned shares its
--- budget, and ends with it unless the call succeeded; an error or a reason is given as text, converted under the budget.
--- Does not restrict what the function can reach: see stdlib.lua and chunk.lua for that.
---
--- A replacement of this file must have `call`.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class CallLimits            the budget of one call
---@field timeout number        seconds from its start to its end
---@field instructions integer  of Lua, by it and the fibers that it spawns; for these, in each `period`
---@field memory number         MB
---@field seconds number        of the processor, in each `period`
---@field period number         seconds

local GRACE = 1  -- seconds between the cancel and the kill of a function that took too long

-- An error or a reason as text. Runs under the budget: the value's __tostring is untrusted too.
local function text(value)
  if value == nil then return "an error without a message (nil)" end
  local meta = getmetatable(value)
  if type(value) == "table" and (type(meta) ~= "table" or not meta.__tostring) then return "an error that is a table, not a message" end
  local ok, words = pcall(tostring, value)
  return ok and words or ("an error that is a %s and cannot be shown"):format(type(value))
end

-- true, the result and the reason as text; or false and the error as text.
local function outcome(ok, value, reason)
  if not ok then return false, text(value) end
  return true, value, reason ~= nil and text(reason) or nil
end

-- Ends the fiber, and those that it spawned, when the caller leaves the scope, unless `succeeded` is set.
local function scope_of(fiber)
  return setmetatable({ succeeded = false }, { __close = function(self)
    if self.succeeded then return end
    fiber:cancel()
    pcall(fiber.await, fiber, GRACE)
    fiber:kill()
    pcall(fiber.await, fiber)
  end })
end

--- Calls fn. Raises only if the caller itself is cancelled; the function is then ended too.
---@param limits CallLimits
---@param fn function
---@return boolean ok
---@return any value        the first result; if not ok, "failed: …" or "took more than …"
---@return string? reason   the second result as text
function M.call(limits, fn, ...)
  local fiber = runtime.spawn(function(...)
    runtime.limit(limits)
    return outcome(pcall(fn, ...))
  end, ...)
  local scope <close> = scope_of(fiber)
  local ended, ok, value, reason = pcall(fiber.await, fiber, limits.timeout)
  if not ended and type(ok) ~= "string" then error(ok, 0) end  -- a budget raises text; all else is the caller's own cancel
  if not ended then return false, "failed: " .. ok end
  if fiber:status() ~= "done" then return false, ("took more than %g s"):format(limits.timeout) end
  if not ok then return false, "failed: " .. value end
  scope.succeeded = true
  return true, value, reason
end

return M
