-- What processes tell of their tasks (contract: an event line), looked at as it comes.
local M = {}

local names = {}
for name in ("received setup pulling pulled created started healthy unhealthy oom exited restarting not_restarting killing killed " ..
  "removed image_removed updated reattached hook_failed failed"):gmatch "%S+" do names[name] = true end

---@param world World
---@param process SimProcess
---@param event table
function M.told(world, process, event)
  world:note("%s %s.%s.%s: %s %s", process, event.job, event.group, event.task, event.event, event.message or "")
  if not names[event.event] then world:violate("an event that has no such name: %s", event.event) end
  -- An error of the program's own shows by the place where it was raised.
  if event.message and event.message:find "lua/dockrun/[%w_/]+%.lua:%d+:" then
    world:violate("an internal error: %s: %s", event.event, event.message)
  end
end

return M
