-- Waits for a condition outside of this process that sends no notification.
--
--   eventually("the port is free", function() return not is_taken(port) end)
local dockrun = require "dockrun"

local PATIENCE = 180 -- seconds; longer than a slow machine needs, so only a hang reaches it
local PAUSE = 0.02

--- Calls probe() repeatedly until it returns a true value, and returns that; raises an error after PATIENCE.
---@param what string                the expected condition, for the error
---@param probe fun(): any, any      the value; if there is none, what was seen instead, for the error
---@return any found
return function(what, probe)
  local deadline = dockrun.now() + PATIENCE
  while true do
    local found, seen = probe()
    if found then return found end
    if dockrun.now() > deadline then
      error(("after %d s still not: %s%s"):format(PATIENCE, what, seen and "; but " .. tostring(seen) or ""), 2)
    end
    dockrun.sleep(PAUSE)
  end
end
