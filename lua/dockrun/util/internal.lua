--- Errors of dockrun's own Lua code, as against those that it raises on purpose: these are values, a bug's is a text. A
--- bug ends the task that met it, and says where it is, so that a report of it can be understood.
local runtime = require "dockrun.core.runtime"

local M = {}

-- "…/lua/dockrun/task/setup.lua:38" of the innermost function in Lua: an error that a C function raises has no place.
local function place()
  local level = 3  -- the caller of `handler`
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return "an unknown place" end
    if info.currentline > 0 then return ("%s:%d"):format(info.short_src, info.currentline) end
    level = level + 1
  end
end

--- A message handler for xpcall. A text such as "…/lua/dockrun/agent/init.lua:38: attempt to index a nil value" becomes an error
--- of the kind "internal" that says "internal error at lua/dockrun/agent/init.lua:38: attempt to index a nil value", with its
--- `traceback`. Any other error stays as it is.
---@param err any
---@return any
function M.handler(err)
  if type(err) ~= "string" then return err end
  local at, text = err:match "^(%S+%.lua:%d+): (.*)$"
  at = (at or place()):gsub("^.*/lua/dockrun/", "lua/dockrun/")
  local message = ("internal error at %s: %s"):format(at, text or err)
  return runtime.error("internal", message, { traceback = debug.traceback(nil, 2) })
end

local function outcome(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

--- Calls fn; raises what it raises, in the form that `handler` gives it.
---@param fn function
---@param ... any
---@return any ...
function M.call(fn, ...) return outcome(xpcall(fn, M.handler, ...)) end

return M
