--- The cgroup of a container on this host.
---
--- A process of a container can be in a group that is not the container's: in the host's root group if the engine had no
--- controller, in a group that the engine shares with it, or in a group below that an init system made. Every engine names
--- a container's group after its id, so the path up to that name is the container's own.
local cgroup = require "dockrun.core.cgroup"

local M = {}

-- "/sys/fs/cgroup/docker-ID.scope/init.scope" -> "/sys/fs/cgroup/docker-ID.scope"; nil if no part has the id.
local function own(path, id) return path:match("^.-/[^/]*" .. id .. "[^/]*") end

--- The groups of a running container, in the shape of cgroup.find(). A controller in which it has no group of its own is
--- left out.
---@param engine table
---@param id string
---@param root? { cgroup?: string, proc?: string }  as for cgroup.find()
---@return table? group  nil if it does not run, its process is not on this host, or it has no group of its own
---@return boolean running
function M.of(engine, id, root)
  local container = engine:container_inspect(id)
  local pid = container and container.State.Pid or 0
  if pid <= 0 then return nil, false end
  local found = cgroup.find(pid, root)
  if not found then return nil, true end
  if found.version == 2 then
    found.path = own(found.path, container.Id)
    return found.path and found, true
  end
  for name, path in pairs(found.paths) do found.paths[name] = own(path, container.Id) end
  return next(found.paths) and found, true
end

--- The file of a group that counts the processes that the kernel killed because memory ran out ("oom_kill").
---@param group table
---@return string? path  nil if the kernel does not count memory there
function M.memory_events(group)
  if group.version == 2 then return group.path .. "/memory.events" end
  return group.paths.memory and group.paths.memory .. "/memory.oom_control"
end

return M
