--- A task's ports: takes a host port for each that the job asks for. A port is held twice: by a bound socket (core/host),
--- which shows it to other programs, and by a lease in the state, which other dockrun processes see and which outlives this
--- one.
local containers = require "dockrun.driver.containers"
local json = require "dockrun.core.json"

local M = {}

---@class PortMapping
---@field label string
---@field ip string              the node's address
---@field host_port integer
---@field container_port integer  the same as the host's, if the label is not a number
---@field protocols string[]      always tcp and udp

local function release(allocator, bind_ip, mappings)
  for _, mapping in ipairs(mappings) do allocator:release(bind_ip, mapping.host_port) end
end

-- Takes a free port with its lease. Ports whose lease another process has are held until the end, so that none is offered
-- twice.
local function pick(allocator, bind_ip, owner, label, lease)
  local refused <close> = setmetatable({}, { __close = function(list)
    for _, port in ipairs(list) do allocator:release(bind_ip, port) end
  end })
  while true do
    local port, err = allocator:allocate(bind_ip, owner)
    if not port then return nil, err end
    local ok
    ok, err = lease(port, label)
    if ok then return port end
    refused[#refused + 1] = port
    if err.kind ~= "taken" then return nil, err end
  end
end

-- Takes this port with its lease.
local function reserve(allocator, bind_ip, port, owner, label, lease)
  local ok, err = allocator:reserve(bind_ip, port, owner)
  if not ok then return nil, err end
  ok, err = lease(port, label)
  if ok then return port end
  allocator:release(bind_ip, port)
  return nil, err
end

--- Takes a host port for each label that a task asks for, or none at all. If one fails, leases that were taken stay: the caller
--- releases those of the whole task.
---@param allocator table  dockrun.core.ports
---@param bind_ip string   address that the ports will be bound on
---@param ip string        the node's address, as tasks see it
---@param asked { label: string, static?: integer, to?: integer }[]
---@param owner string     named when another task wants one of them
---@param lease fun(port: integer, label: string): true?, table?  takes it among all processes; kind "taken": another has it
---@return PortMapping[]? mappings
---@return table? err  kind "taken" or "exhausted"; the lease's
function M.allocate(allocator, bind_ip, ip, asked, owner, lease)
  local mappings = json.array {}
  for _, want in ipairs(asked) do
    local port, err
    if want.static then
      port, err = reserve(allocator, bind_ip, want.static, owner, want.label, lease)
    else
      port, err = pick(allocator, bind_ip, owner, want.label, lease)
    end
    if not port then
      release(allocator, bind_ip, mappings)
      err.label = want.label
      return nil, err
    end
    mappings[#mappings + 1] = {
      label = want.label, ip = ip, host_port = port, container_port = want.to or port,
      protocols = json.array { "tcp", "udp" },
    }
  end
  return mappings
end

-- ---- leases -----------------------------------------------------------------------------------

-- Makes the function that says whether the container of a lease's task runs, and so uses the port. Yes if that is unknown: the
-- engine cannot be reached, or the job runs on another engine.
local function in_use(services)
  local listed
  return function(lease)
    local row, err = services.state:task(lease.alloc, lease.task)
    if not row then return err ~= nil end
    local elsewhere, unknown = services.state:runs_elsewhere(row.job, services.engine:endpoint())
    if elsewhere or unknown then return true end
    if listed == nil then listed = containers.list(services.engine, nil, true) or false end
    if not listed then return true end
    for _, container in ipairs(listed) do
      if containers.is_recorded(row, container, services.state.id) then return true end
    end
    return false
  end
end

--- Releases the leases of processes that have ended, except for ports of containers that still run.
---@param services TaskEnv
---@return Lease[]? released
---@return table? err
function M.reclaim(services) return services.state:reclaim_leases(in_use(services), services.is_alive) end

--- Makes the function by which `allocate` leases a port. If another process has it, reclaims leases once and retries.
---@param services TaskEnv
---@param task Task
---@return fun(port: integer, label: string): true?, table?
function M.lease_port(services, task)
  local reclaimed = false
  return function(port, label)
    local lease = { ip = services.bind_ip, port = port, alloc = task.alloc_id, task = task.name, label = label }
    local ok, err = services.state:lease(lease)
    if ok or err.kind ~= "taken" or reclaimed then return ok, err end
    reclaimed = true  -- once: a lease that is still there is in use
    local _, why = M.reclaim(services)
    if why then return nil, why end
    return services.state:lease(lease)
  end
end

return M
