--- Ports among all dockrun processes of the host, those that have ended too: each is leased in the state before it is
--- used.
local containers = require "dockrun.driver.containers"

local M = {}

-- Whether the container of the lease's task runs, and so has the port. An engine that cannot be asked may have one, and one of
-- another engine cannot be seen from here.
local function holder(agent)
  local listed
  return function(lease)
    local row, err = agent.state:task(lease.alloc, lease.task)
    if not row then return err ~= nil end
    local elsewhere, unknown = agent.state:runs_elsewhere(row.job, agent.engine:endpoint())
    if elsewhere or unknown then return true end
    if listed == nil then listed = containers.list(agent.engine, nil, true) or false end
    if not listed then return true end
    for _, container in ipairs(listed) do
      if containers.is_recorded(row, container, agent.state.id) then return true end
    end
    return false
  end
end

--- Takes back what processes that have ended hold, but for the ports of containers that run on.
---@param agent Agent
---@return Lease[]? released
---@return table? err
function M.reclaim(agent) return agent.state:reclaim_leases(holder(agent), agent.is_alive) end

--- What `ports.allocate` asks for every port that the kernel would let it have.
---@param agent Agent
---@param task Task
---@return fun(port: integer, label: string): true?, table?
function M.taker(agent, task)
  local reclaimed = false
  return function(port, label)
    local wanted = { ip = agent.bind_ip, port = port, alloc = task.alloc_id, task = task.name, label = label }
    local ok, err = agent.state:lease(wanted)
    if ok or err.kind ~= "taken" or reclaimed then return ok, err end
    reclaimed = true  -- once: what has not gone by then is held
    local _, why = M.reclaim(agent)
    if why then return nil, why end
    return agent.state:lease(wanted)
  end
end

return M
