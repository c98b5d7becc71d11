-- Waiting for what happens outside of this process, where nothing tells when it does.
--
--   eventually("the port is free", function() return not is_taken(port) end)
local dockrun = require "dockrun"

local PATIENCE = 180 -- seconds; a hang, and not a slow machine
local PAUSE = 0.02

--- Looks again and again until look() returns something, and returns that; raises if that never comes.
---@param what string                what is waited for, for the error
---@param look fun(): any, any       what was found; if nothing was, what was seen instead, for the error
---@return any found
return function(what, look)
  local deadline = dockrun.now() + PATIENCE
  while true do
    local found, seen = look()
    if found then return found end
    if dockrun.now() > deadline then
      error(("after %d s still not: %s%s"):format(PATIENCE, what, seen and "; but " .. tostring(seen) or ""), 2)
    end
    dockrun.sleep(PAUSE)
  end
end
