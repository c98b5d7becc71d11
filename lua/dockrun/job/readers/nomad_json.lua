--- Converts a job of Nomad's API (https://developer.hashicorp.com/nomad/api-docs/json-jobs) into the raw tree of the other
--- forms: { ID = "a", KillTimeout = 5e9 } -> { name = "a", kill_timeout = 5 }. Wrong types are kept: normalise.lua reports them.

local tables = require "dockrun.util.tables"

local M = {}

-- "DiskMB" -> "disk_mb", "KillTimeout" -> "kill_timeout"
local function snake(name)
  return (name:gsub("(%l)(%u)", "%1_%2"):gsub("(%u)(%u%l)", "%1_%2"):lower())
end

-- A number is in nanoseconds; text is a duration as in the other forms.
local function seconds(value) return type(value) == "number" and value / 1e9 or value end

local levels = {}

-- A block with its names changed as its level says: `false` drops a key.
local function block(level, value)
  if type(value) ~= "table" then return value end
  local result = {}
  for _, key in ipairs(tables.keys(value)) do
    local item, rule = value[key], levels[level][key]
    if type(key) ~= "string" then
      result[key] = item
    elseif rule == nil then
      result[snake(key)] = item
    elseif type(rule) == "string" then
      result[rule] = item
    elseif rule then
      rule(result, item)
    end
  end
  return result
end

local function under(name, convert)
  return function(result, item) result[name] = convert(item) end
end

local function each(name, level)
  return under(name, function(list)
    if type(list) ~= "table" then return list end
    local result = {}
    for i, item in ipairs(list) do result[i] = block(level, item) end
    return result
  end)
end

local function one(name, level)
  return under(name, function(value) return block(level, value) end)
end

-- Ports: bare labels and numbers as in Nomad 0.1, or {Label, Value, To} with 0 for "not given".
local function ports(plain)
  return function(result, list)
    if type(list) ~= "table" then
      result[plain] = list
      return
    end
    for _, port in ipairs(list) do
      if type(port) == "table" then
        local static, to = port.Value, port.To
        result.port = result.port or {}
        table.insert(result.port, {
          label = port.Label, static = plain == "reserved_ports" and static or nil, to = to ~= 0 and to or nil,
        })
      else
        result[plain] = result[plain] or {}
        table.insert(result[plain], port)
      end
    end
  end
end

-- Keys that Nomad's servers add to a job.
local bookkeeping = {
  "CreateIndex", "Dispatched", "JobModifyIndex", "ModifyIndex", "ParentID", "Payload", "Stable", "Status",
  "StatusDescription", "Stop", "SubmitTime", "Version", "VersionTag", "NomadTokenID", "ConsulToken", "VaultToken",
}

levels.constraint = { LTarget = "attribute", RTarget = "value", Operand = "operator" }
levels.restart = { Interval = under("interval", seconds), Delay = under("delay", seconds) }
levels.network = {
  MBits = "mbits", DynamicPorts = ports "dynamic_ports", ReservedPorts = ports "reserved_ports", CIDR = "cidr", IP = "ip",
  DNS = "dns",
}
levels.resources = {
  CPU = "cpu", MemoryMB = "memory", MemoryMaxMB = "memory_max", DiskMB = "disk", IOPS = "iops", NUMA = "numa",
  Networks = each("network", "network"),
}
levels.task = {
  Resources = one("resources", "resources"), Constraints = each("constraint", "constraint"),
  RestartPolicy = one("restart", "restart"), KillTimeout = under("kill_timeout", seconds),
  LogConfig = "logs", Services = "service", Templates = "template", Artifacts = "artifact", Affinities = "affinity",
  VolumeMounts = "volume_mount", ScalingPolicies = "scaling", CSIPluginConfig = "csi_plugin", Identities = "identity",
}
levels.group = {
  Tasks = each("task", "task"), Constraints = each("constraint", "constraint"), RestartPolicy = one("restart", "restart"),
  Networks = each("network", "network"), Services = "service", Affinities = "affinity", Spreads = "spread",
  EphemeralDisk = "ephemeral_disk", ReschedulePolicy = "reschedule", Volumes = "volume",
}
levels.job = {
  ID = "name", Name = function(result, name) result.name = result.name or name end,
  TaskGroups = each("group", "group"), Constraints = each("constraint", "constraint"), Affinities = "affinity",
  Spreads = "spread", ParameterizedJob = "parameterized", UI = "ui",
}
for _, key in ipairs(bookkeeping) do levels.job[key] = false end

--- Whether this is the API's form.
---@param value table
---@return boolean
function M.is(value) return value.Job ~= nil or value.TaskGroups ~= nil or value.ID ~= nil end

--- The raw tree of a job.
---@param value table
---@return any
function M.tree(value)
  if value.Job == nil then return block("job", value) end
  return block("job", value.Job)
end

return M
