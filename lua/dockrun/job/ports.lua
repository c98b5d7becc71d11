--- The ports of a job: from the several ways to ask for them to one list per task, and what may not stand together.

local json = require "dockrun.core.json"
local suggest = require "dockrun.job.suggest"

local M = {}

---@class PortAsked
---@field label string
---@field static? integer  exactly this port of the host
---@field to? integer      the port in the container; left out, it is the host's

--- What of a port's or meta key's name stands in the names of variables: "web-ui" -> "WEB_UI".
---@param label string
---@return string
function M.variable(label) return (label:upper():gsub("[^%w_]", "_")) end

-- A number as a label stands for the container port of that number; a fixed port of the host is that in the container
-- too; every other label maps 1:1.
local function target(label, static) return math.tointeger(tonumber(label:match "^%d+$")) or static end

-- list -> { label -> its first port }, of as many ports as `indexed` says: a list only grows, and a label never changes.
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

-- `key` and `i` tell where in the block at `path`.
local function append(reading, list, port, path, key, i)
  if not port.label then return end  -- wrong, and said so
  if find(list, port.label) then
    if key then path = ("%s.%s[%d]"):format(path, key, i) end
    reading.problems:add(path, ("port '%s' is asked for twice"):format(port.label))
  else
    list[#list + 1] = port
  end
end

-- What a network block asks for by dynamic_ports, reserved_ports and port blocks. `fixed` holds the ports whose target
-- was written.
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

-- Together with the list that a normalised job has already: the same ports again, or none.
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
      reading.problems:add(reading.paths[find(known, port.label)], ("port '%s' is asked for twice"):format(port.label))
    end
  end
  return result
end

-- port_map of newer Nomad: where a label leads in the container. What a normalised job knows leads there already.
local function map(reading, list, known, config, fixed)
  if not config.port_map then return end
  for label, to in pairs(config.port_map) do
    local port, path = find(list, label) or find(known, label), ("%s.port_map.%s"):format(reading.paths[config], label)
    if not port then
      reading.problems:add(path, ("the task has no port '%s'%s"):format(label, suggest.hint(label, labels(list, known))))
    elseif (fixed[port] or not find(list, label)) and port.to ~= to then
      reading.problems:add(path, ("port '%s' leads to %s already"):format(label, port.to or "the port of the host's number"))
    else
      port.to = to
    end
  end
end

-- The group's ports that a task takes: those that its config.ports names; all, where it is the only task.
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

-- What is wrong with a label beside that of another port, which becomes the same variable.
local function conflict(port, other, task)
  if port.label == other.label then return ("port '%s' is also asked for by task '%s' of the group"):format(port.label, other.task) end
  local whose = other.task == task.name and "" or (" of task '%s'"):format(other.task)
  return ("ports '%s' and '%s'%s become the same variable, NOMAD_PORT_%s; rename one of them"):format(
    port.label, other.label, whose, M.variable(port.label))
end

-- No variable twice in a group, no fixed port twice in a job: it has one host.
local function exclude(reading, group, task, by_variable, by_static)
  local path = reading.paths[task.resources.network]
  for _, port in ipairs(task.resources.network.ports) do
    local variable = M.variable(port.label)
    local other, holder = by_variable[variable], port.static and by_static[port.static]
    if other then
      reading.problems:add(path, conflict(port, other, task))
    elseif holder then
      reading.problems:add(path, ("port %d is reserved twice: %s has it"):format(port.static, holder))
    end
    by_variable[variable] = { label = port.label, task = task.name or "?" }
    if port.static then
      by_static[port.static] = reading.paths[task]
      if (group.count or 1) > 1 then
        reading.problems:warn(path, ("port %d is one, and the group's count is %d"):format(port.static, group.count))
      end
    end
  end
end

--- Gives every task its `resources.network.ports`.
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
        reading.problems:warn(reading.paths[group.network], ("port '%s' is taken by no task: name it in config.ports"):format(port.label))
      end
    end
  end
end

return M
