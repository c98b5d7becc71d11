--- A container's place in the network: the ports that it publishes, its endpoint in a network, its addresses. Which host
--- ports are free is not decided here: see task/ports.lua.

local labels = require "dockrun.driver.labels"

local M = {}

--- Network modes in which the container has no ports of its own to publish.
M.unpublished = { host = true, none = true }

-- Every mapping binds tcp and udp (docs/job.md).
local function publish(body, context)
  if M.unpublished[context.resolved.config.network_mode] then return end
  for _, port in ipairs(context.ports) do
    for _, protocol in ipairs(port.protocols) do
      local key = ("%d/%s"):format(port.container_port, protocol)
      body.ExposedPorts = body.ExposedPorts or {}
      body.ExposedPorts[key] = {}
      local bindings = body.HostConfig.PortBindings or {}
      body.HostConfig.PortBindings = bindings
      bindings[key] = bindings[key] or {}
      table.insert(bindings[key], { HostIp = context.bind_ip, HostPort = tostring(port.host_port) })
    end
  end
end

local function add_endpoint(body, config)
  local address = (config.ipv4_address or config.ipv6_address)
    and { IPv4Address = config.ipv4_address, IPv6Address = config.ipv6_address }
  if not (address or config.network_aliases or config.mac_address) then return end
  body.NetworkingConfig = { EndpointsConfig = { [config.network_mode] = {
    IPAMConfig = address or nil, Aliases = config.network_aliases, MacAddress = config.mac_address,
  } } }
end

--- Puts a task's ports and its endpoint into the create body.
---@param body table
---@param context TaskContext
function M.apply(body, context)
  add_endpoint(body, context.resolved.config)
  publish(body, context)
end

--- Before API 1.44 the MAC address was a field of the body itself.
---@param engine table
---@param body table
function M.add_mac_address(engine, body)
  local _, endpoint = next(body.NetworkingConfig and body.NetworkingConfig.EndpointsConfig or {})
  local address = endpoint and endpoint.MacAddress
  if address and tonumber(engine:api():match "%d+$") < 44 then body.MacAddress = address end
end

--- The IPv6 address of a running container, if its task has advertise_ipv6_address.
---@param engine table
---@param id string
---@param config table  the task's
---@return string? address
function M.advertised(engine, id, config)
  local found = config.advertise_ipv6_address and engine:container_inspect(id)
  for _, endpoint in pairs(found and found.NetworkSettings.Networks or {}) do
    if endpoint.GlobalIPv6Address ~= "" then return endpoint.GlobalIPv6Address end
  end
end

-- The engine's words if another program took a host port between dockrun's probe and the engine's bind.
local lost_port = { "port is already allocated", "address already in use", "failed to bind host port" }

--- Whether a start failed because another program had taken a host port.
---@param err table
---@return boolean lost
---@return integer? port  if the engine names it
function M.lost_port(err)
  for _, text in ipairs(lost_port) do
    if err.message:find(text, 1, true) then
      local port = err.message:match ":(%d+) failed" or err.message:match ":(%d+): bind" or err.message:match ":(%d+)"
      return true, math.tointeger(tonumber(port))
    end
  end
  return false
end

local function describe(container)
  local carried = container.Labels or {}
  local job, task = carried[labels.key.job], carried[labels.key.task]
  return job and task and ("task '%s' of job '%s'"):format(task, job)
    or ("container '%s'"):format(((container.Names[1] or container.Id):gsub("^/", "")))
end

--- The container that publishes a host port, for people: "task 'db' of job 'web'", "container 'pg'".
---@param engine table
---@param host_port integer
---@return string?
function M.holder_of(engine, host_port)
  for _, container in ipairs(engine:container_list() or {}) do
    for _, port in ipairs(container.Ports or {}) do
      if port.PublicPort == host_port then return describe(container) end
    end
  end
end

---@class NetworkFound
---@field id string
---@field name string
---@field alloc? string    by its label
---@field created string   RFC 3339

--- The networks that carry a state's label: scripts and hooks may make some for an allocation.
---@param engine table
---@param state_id string
---@return NetworkFound[]? networks
---@return table? err
function M.list(engine, state_id)
  local label = ("%s=%s"):format(labels.key.state, state_id)
  local networks, err = engine:network_list { filters = { label = { label } } }
  if not networks then return nil, err end
  local list = {}
  for i, one in ipairs(networks) do
    list[i] = { id = one.Id, name = one.Name, alloc = one.Labels[labels.key.alloc], created = one.Created }
  end
  return list
end

return M
