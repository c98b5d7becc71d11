-- The options of a task's `config` in the engine's terms: each row of job/schema/docker_options.lua that names a field of the create
-- body goes there as it is, but for those below, which the engine wants in another shape.
--
-- What is false or left out is left to the engine, so that its own defaults hold.
local capabilities = require "dockrun.driver.capabilities"
local job_files = require "dockrun.driver.job_files"
local json = require "dockrun.core.json"
local limits = require "dockrun.driver.limits"
local rows = require "dockrun.job.schema.docker_options"
local runtime = require "dockrun.core.runtime"
local mounts = require "dockrun.driver.mounts"

local M = {}

local function put(body, field, value)
  local last = field:match "[^.]+$"
  for name in field:gmatch "([^.]+)%." do
    body[name] = body[name] or {}
    body = body[name]
  end
  body[last] = value
end

local function devices(list)
  local result = json.array {}
  for i, device in ipairs(list) do
    result[i] = {
      PathOnHost = device.host_path, PathInContainer = device.container_path or device.host_path,
      CgroupPermissions = device.cgroup_permissions,
    }
  end
  return result
end

local function ulimits(map)
  local result = json.array {}
  for name, text in pairs(map) do
    local soft, hard = text:match "^(%-?%d+):?(%-?%d*)$"
    soft, hard = math.tointeger(tonumber(soft)), math.tointeger(tonumber(hard ~= "" and hard or soft))
    if not soft then return nil, ("ulimit.%s must be 'soft:hard', not '%s'"):format(name, text) end
    result[#result + 1] = { Name = name, Soft = soft, Hard = hard }
  end
  table.sort(result, function(a, b) return a.Name < b.Name end)
  return result
end

local PROFILE_BYTES = 1 << 20  -- Docker's own has 12 KB

-- As docker run does: the engine may be elsewhere, and gets the profile itself.
local function security(list, context, options)
  local result = json.array {}
  for i, option in ipairs(list) do
    local path = job_files.profile(option)
    result[i] = option
    if path then
      local text, err = job_files.read(context.dirs, path, options, PROFILE_BYTES)
      if not text then return nil, "the seccomp profile: " .. err.message end
      local profile = json.decode(text)
      if type(profile) ~= "table" then return nil, ("the seccomp profile '%s' is not a JSON object"):format(path) end
      result[i] = "seccomp=" .. json.encode(profile)
    end
  end
  return result
end

-- What the engine wants in another shape: value, context, options -> what goes to the row's field; nil, why where it cannot.
local convert = {
  devices = devices, ulimit = ulimits, security_opt = security,
  logging = function(block) return { Type = block.type, Config = block.config } end,
  healthchecks = function(block) return block.disable and { Test = { "NONE" } } or false end,
}
local fields = { logging = "HostConfig.LogConfig", healthchecks = "Healthcheck" }

-- What others put into the body: docker.lua, limits.lua, and below.
local elsewhere = {
  image = true, command = true, args = true, labels = true, ports = true, port_map = true, cpu_hard_limit = true,
  cpu_cfs_period = true, cpuset_cpus = true, memory_hard_limit = true, cap_add = true, cap_drop = true, volumes = true,
  mount = true, network_aliases = true, ipv4_address = true, ipv6_address = true, mac_address = true, pids_limit = true,
  oom_score_adj = true,
}

-- In the network that is asked for.
local function network(body, config)
  local address = (config.ipv4_address or config.ipv6_address)
    and { IPv4Address = config.ipv4_address, IPv6Address = config.ipv6_address }
  if not (address or config.network_aliases or config.mac_address) then return end
  body.NetworkingConfig = { EndpointsConfig = { [config.network_mode] = {
    IPAMConfig = address or nil, Aliases = config.network_aliases, MacAddress = config.mac_address,
  } } }
end

-- What the agent says where a task says nothing, or less than is needed.
local function add_defaults(host, config, options)
  local add, drop = capabilities.delta(config.cap_add, config.cap_drop, options["docker.allow_caps"])
  if #add > 0 then host.CapAdd = add end
  if #drop > 0 then host.CapDrop = drop end
  local function option(name) return options[name] > 0 and math.floor(options[name]) or nil end
  host.PidsLimit = host.PidsLimit or option "docker.pids_limit"
  host.OomScoreAdj = (config.oom_score_adj or 0) > 0 and config.oom_score_adj or option "docker.oom_score_adj"
end

local function invalid(name, why) return nil, runtime.error("invalid", ("config.%s: %s"):format(name, tostring(why))) end

--- Puts a task's config into the create body.
---@param body table
---@param context TaskContext
---@param options table<string, any>
---@return true? ok
---@return table? err  kind "invalid": names the option
function M.apply(body, context, options)
  local config = context.task.config
  for _, row in ipairs(rows) do
    local value, field = config[row.name], row.engine or fields[row.name]
    if value and field and not elsewhere[row.name] then
      local shape, why = value, nil
      if convert[row.name] then shape, why = convert[row.name](value, context, options) end
      if shape == nil then return invalid(row.name, why) end
      if shape then put(body, field, shape) end
    end
  end
  local resources, err = limits.to_engine(context.task)
  if not resources then return invalid("cpu_hard_limit", err) end
  for name, value in pairs(resources) do body.HostConfig[name] = value end
  add_defaults(body.HostConfig, config, options)
  network(body, config)
  return mounts.apply(body.HostConfig, context, options)
end

return M
