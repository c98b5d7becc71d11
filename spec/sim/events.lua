-- Checks each event line that a process writes about its tasks.
local M = {}

local names = {}
for name in ("received setup pulling pulled created started healthy unhealthy oom exited restarting not_restarting killing killed " ..
  "removed image_removed updated reattached hook_failed failed"):gmatch "%S+" do names[name] = true end

---@param world World
---@param process SimProcess
---@param event table
function M.told(world, process, event)
  world:note("%s %s.%s.%s: %s %s", process, event.job, event.group, event.task, event.event, event.message or "")
  if not names[event.event] then world:violate("unknown event: %s", event.event) end
  -- A message with a place in the source is an internal error.
  if event.message and event.message:find "lua/dockrun/[%w_/]+%.lua:%d+:" then
    world:violate("an internal error: %s: %s", event.event, event.message)
  end
end

return M
