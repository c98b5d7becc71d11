--- Reads the ports of a job: converts the several ways to ask for a port into one list per task, and checks for conflicts.
--- { dynamic_ports = { "web" }, reserved_ports = { 80 } } -> { { label = "web" }, { label = "80", static = 80, to = 80 } }.
--- Only reads what the job asks for; task/ports.lua leases the ports of the host.

local json = require "dockrun.core.json"
local suggest = require "dockrun.job.suggest"

local M = {}

---@class PortAsked
---@field label string
---@field static? integer  exactly this port of the host
---@field to? integer      the port in the container; left out, it is the host's

--- The part of a variable's name for a port label or a meta key: "web-ui" -> "WEB_UI".
---@param label string
---@return string
function M.variable(label) return (label:upper():gsub("[^%w_]", "_")) end

-- The port in the container. A label that is a number means that port; a static port is the same in the container; with
-- any other label the container gets the number that the host port has.
local function target(label, static) return math.tointeger(tonumber(label:match "^%d+$")) or static end

-- list -> { label -> its first port }, for the first `indexed[list]` ports: a list only grows, and a label never changes.
local indexes, indexed = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

local function find(list, label)
  local index = indexes[list] or {}
  for i = (indexed[list] or 0) + 1, #list do
    local name = list[i].label
    if name ~= nil then index[name] = index[name] or list[i] end
  end
  indexes[list], indexed[list] = index, #list
  return index[label]
end

local function labels(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, port in ipairs(list) do all[#all + 1] = port.label end
  end
  return all
end

-- `path` is that of the block; `key` and `i` name the item in it.
local function append(reading, list, port, path, key, i)
  if not port.label then return end  -- an error already
  if find(list, port.label) then
    if key then path = ("%s.%s[%d]"):format(path, key, i) end
    reading.problems:add(path, ("port '%s' appears twice; only one is allowed"):format(port.label))
  else
    list[#list + 1] = port
  end
end

-- The ports of a network block: dynamic_ports, reserved_ports and port blocks. `fixed` gets the ports whose target the job
-- sets.
local function asked(reading, network, fixed)
  local list, path = json.array {}, reading.paths[network]
  for i, label in ipairs(network.dynamic_ports or {}) do
    append(reading, list, { label = label, to = target(label) }, path, "dynamic_ports", i)
  end
  for i, number in ipairs(network.reserved_ports or {}) do
    append(reading, list, { label = tostring(number), static = number, to = number }, path, "reserved_ports", i)
  end
  for _, block in ipairs(network.port or {}) do
    local port = { label = block.label, static = block.static }
    if block.to ~= -1 then port.to = block.to or port.label and target(port.label, port.static) end
    if block.to then fixed[port] = true end
    append(reading, list, port, reading.paths[block])
  end
  return list
end

-- Adds the list that a normalised job already has: it must have the same ports, or none.
local function merge(reading, list, known)
  if not known then return list end
  local result = json.array {}
  for _, block in ipairs(known) do
    append(reading, result, { label = block.label, static = block.static, to = block.to ~= -1 and block.to or nil }, reading.paths[block])
  end
  for _, port in ipairs(list) do
    local same = find(result, port.label)
    if not same then
      result[#result + 1] = port
    elseif same.static ~= port.static or same.to ~= port.to then
      reading.problems:add(reading.paths[find(known, port.label)], ("port '%s' appears twice; only one is allowed"):format(port.label))
    end
  end
  return result
end

-- port_map of newer Nomad: the container port of a label. In a normalised job the ports have it already.
local function map(reading, list, known, config, fixed)
  if not config.port_map then return end
  for label, to in pairs(config.port_map) do
    local port, path = find(list, label) or find(known, label), ("%s.port_map.%s"):format(reading.paths[config], label)
    if not port then
      reading.problems:add(path, ("the task has no port '%s'%s"):format(label, suggest.hint(label, labels(list, known))))
    elseif (fixed[port] or not find(list, label)) and port.to ~= to then
      reading.problems:add(path, ("port '%s' already maps to %s"):format(label, port.to or "the number of the host port"))
    else
      port.to = to
    end
  end
end

-- Adds the group's ports that a task takes: those in its config.ports; all of them if it is the only task.
local function take(reading, list, task, group, shared, fixed, taken)
  local own = task.resources.network.ports or {}
  local wanted = task.config.ports
  if #shared == 0 and not wanted then return end
  local function copy(port)
    taken[port.label] = true
    local mine = { label = port.label, static = port.static, to = port.to }
    fixed[mine] = fixed[port]
    append(reading, list, mine, reading.paths[task.config])
  end
  for i, label in ipairs(wanted or {}) do
    local port = find(shared, label)
    if port then
      copy(port)
    elseif not find(list, label) and not find(own, label) then
      reading.problems:add(("%s.ports[%d]"):format(reading.paths[task.config], i),
        ("neither the task nor its group has a port '%s'%s"):format(label, suggest.hint(label, labels(shared, list))))
    end
  end
  if not wanted and #group.tasks == 1 then
    for _, port in ipairs(shared) do copy(port) end
  end
end

local function task_ports(reading, task, group, shared, fixed, taken)
  local network = task.resources.network
  local list = asked(reading, network, fixed)
  take(reading, list, task, group, shared, fixed, taken)
  map(reading, list, network.ports or {}, task.config, fixed)
  network.ports, network.port = merge(reading, list, network.ports), nil
end

local function group_ports(reading, group, fixed)
  local network = group.network
  if not network then return {} end
  network.ports, network.port = merge(reading, asked(reading, network, fixed), network.ports), nil
  return network.ports
end

-- The message if two ports have the same variable.
local function conflict(port, other, task)
  if port.label == other.label then return ("port '%s' is also a port of task '%s' in this group"):format(port.label, other.task) end
  local whose = other.task == task.name and "" or (" of task '%s'"):format(other.task)
  return ("ports '%s' and '%s'%s become the same variable, NOMAD_PORT_%s; rename one of them"):format(
    port.label, other.label, whose, M.variable(port.label))
end

-- A variable must be unique in a group, and a static port in a job: there is one host.
local function exclude(reading, group, task, by_variable, by_static)
  local path = reading.paths[task.resources.network]
  for _, port in ipairs(task.resources.network.ports) do
    local variable = M.variable(port.label)
    local other, holder = by_variable[variable], port.static and by_static[port.static]
    if other then
      reading.problems:add(path, conflict(port, other, task))
    elseif holder then
      reading.problems:add(path, ("port %d is reserved twice: also by %s"):format(port.static, holder))
    end
    by_variable[variable] = { label = port.label, task = task.name or "?" }
    if port.static then
      by_static[port.static] = reading.paths[task]
      if (group.count or 1) > 1 then
        reading.problems:warn(path, ("port %d is static, so only one of %d allocations can have it"):format(port.static, group.count))
      end
    end
  end
end

--- Sets `resources.network.ports` of every task.
---@param reading Reading
---@param job table
function M.job(reading, job)
  local by_static = {}
  for _, group in ipairs(job.groups) do
    local fixed, taken, by_variable = {}, {}, {}
    local shared = group_ports(reading, group, fixed)
    for _, task in ipairs(group.tasks) do
      if task.resources and task.resources.network and task.config then
        task_ports(reading, task, group, shared, fixed, taken)
        exclude(reading, group, task, by_variable, by_static)
      end
    end
    for _, port in ipairs(shared) do
      if not taken[port.label] then
        reading.problems:warn(reading.paths[group.network], ("no task takes port '%s'; name it in config.ports"):format(port.label))
      end
    end
  end
end

return M
