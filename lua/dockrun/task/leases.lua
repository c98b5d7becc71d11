--- Ports among all dockrun processes of the host, those that have ended too: each is leased in the state before it is
--- used.
local driver = require "dockrun.driver.docker"

local M = {}

-- Whether a container of the lease's allocation is there that has the port, or would have it again once it starts. An
-- engine that cannot be asked may have one.
local function holder(engine)
  return function(lease)
    local found = engine:container_list { filters = { label = { driver.labels.alloc .. "=" .. lease.alloc } } }
    return not found or #found > 0
  end
end

--- Takes back what processes that have ended hold, but for the ports of containers that run on.
---@param agent Agent
---@return Lease[]? released
---@return table? err
function M.reclaim(agent) return agent.state:reclaim_leases(holder(agent.engine), agent.is_alive) end

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
