--- Other limits for a container that runs, without a restart.
local validators = require "dockrun.job.validators"
local container_config = require "dockrun.driver.container_config"
local docker = require "dockrun.driver.docker"
local runtime = require "dockrun.core.runtime"

local M = {}

-- A name that no container has.
local NOBODY = "dockrun-asks-for-update"

--- Whether an engine changes limits of a container that runs. Podman (4.3) has no such call: its 404 is its router's, and not
--- of a container that is missing.
---@param engine table
---@return boolean
function M.is_possible(engine)
  local _, err = engine:container_update(NOBODY)
  return not (err and err.status == 404 and err.kind == "protocol")
end

--- Gives a container the limits of a task (POST /containers/{id}/update). Memory and swap go together, so that either
--- may rise or fall past the other's old limit.
---@param engine table
---@param id string
---@param task table  normalised
---@return true? ok
---@return table? err  the engine's, with what was tried; nothing is promised of the other limits then
---@return string? warnings  what the engine did not do
function M.in_place(engine, id, task)
  local limits, err = container_config.resources(task)
  if not limits then return nil, err end
  if validators.is_open(limits.CpusetCpus or "") then limits.CpusetCpus = nil end  -- it was filled in when the container was made
  if (task.config.pids_limit or 0) > 0 then limits.PidsLimit = task.config.pids_limit end
  if not task.config.cpu_hard_limit then limits.CpuQuota = -1 end  -- a limit that was there goes
  limits.MemoryReservation = limits.MemoryReservation or 0
  local answer
  answer, err = engine:container_update(id, { body = limits })
  if answer then return true, nil, docker.limitations(answer) end
  return nil, runtime.error("engine", ("cannot change the limits of task '%s' (%d MB, %d MHz): %s"):format(
    task.name, task.resources.memory, task.resources.cpu, err), { status = err.status })
end

return M
