--- A task as the body of POST /containers/create (Engine API v1.41):
---
---   { name = "web", config = { image = "nginx", command = "sh" }, resources = { memory = 64, … }, … }
---     -> { Image = "docker.io/library/nginx:latest", Cmd = { "sh" }, HostConfig = { Memory = 67108864, … }, … }
---
--- Each row of job/schema/docker_options.lua that names a field of the engine goes there as it is; `convert` below has the
--- options that the engine takes in another shape. An option that is false or left out is not sent, so that the engine's
--- default holds. The parts: labels.lua, limits.lua, network.lua, mounts.lua. A replacement has body and stop_signal.
local capabilities = require "dockrun.driver.capabilities"
local job_files = require "dockrun.driver.job_files"
local json = require "dockrun.core.json"
local labels = require "dockrun.driver.labels"
local limits = require "dockrun.driver.limits"
local mounts = require "dockrun.driver.mounts"
local network = require "dockrun.driver.network"
local rows = require "dockrun.job.schema.docker_options"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class TaskContext
---@field job table      the normalised job
---@field group table
---@field spec table     the task as written
---@field draft? table   the task as its hooks changed it; nil if they cannot
---@field resolved table  the task with its `${…}` interpolated
---@field alloc { id: string, index: integer }
---@field ip string      the node's address (NOMAD_IP)
---@field state_id? string  the state that knows the container
---@field intent? string    names this creation: the state has it before the engine is asked
---@field bind_ip string address that ports are bound on, "" for all
---@field ports { label: string, ip: string, host_port: integer, container_port: integer, protocols: string[] }[]
---@field env table<string, string>
---@field stop_signal? string  of the existing container
---@field image_asked? string   the image as the job names it, before `pull` hooks
---@field dirs? AllocDirs  nil if the engine is on another host
---@field moved? string[]  paths of the allocation that other tasks see from their next start on, see bind_sources.lua
---@field image? { id: string, reference: table, pulled: boolean, stop_signal?: string }

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

-- Like `docker run`: the engine gets the profile's text, since it may be on another host.
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

-- Options that the engine takes in another shape: value, context, options -> the field's value; nil, why if there is none;
-- false if the field is left out.
local convert = {
  devices = devices, ulimit = ulimits, security_opt = security,
  logging = function(block) return { Type = block.type, Config = block.config } end,
  healthchecks = function(block) return block.disable and { Test = { "NONE" } } or false end,
}
local fields = { logging = "HostConfig.LogConfig", healthchecks = "Healthcheck" }

-- Options that are put into the body elsewhere: by the other files of driver/, or below.
local elsewhere = {
  image = true, command = true, args = true, labels = true, ports = true, port_map = true, cpu_hard_limit = true,
  cpu_cfs_period = true, cpuset_cpus = true, memory_hard_limit = true, cap_add = true, cap_drop = true, volumes = true,
  mount = true, network_aliases = true, ipv4_address = true, ipv6_address = true, mac_address = true, pids_limit = true,
  oom_score_adj = true,
}

-- The agent's options, for what a task leaves out.
local function add_defaults(host, config, options)
  local add, drop = capabilities.delta(config.cap_add, config.cap_drop, options["docker.allow_caps"])
  if #add > 0 then host.CapAdd = add end
  if #drop > 0 then host.CapDrop = drop end
  local function option(name) return options[name] > 0 and math.floor(options[name]) or nil end
  host.PidsLimit = host.PidsLimit or option "docker.pids_limit"
  host.OomScoreAdj = (config.oom_score_adj or 0) > 0 and config.oom_score_adj or option "docker.oom_score_adj"
end

local function invalid(name, why) return nil, runtime.error("invalid", ("config.%s: %s"):format(name, tostring(why))) end

-- Puts a task's config into the body.
local function add_config(body, context, options)
  local config = context.resolved.config
  for _, row in ipairs(rows) do
    local value, field = config[row.name], row.engine or fields[row.name]
    if value and field and not elsewhere[row.name] then
      local shape, why = value, nil
      if convert[row.name] then shape, why = convert[row.name](value, context, options) end
      if shape == nil then return invalid(row.name, why) end
      if shape then put(body, field, shape) end
    end
  end
  local resources, err = limits.to_engine(context.resolved)
  if not resources then return invalid("cpu_hard_limit", err) end
  for name, value in pairs(resources) do body.HostConfig[name] = value end
  add_defaults(body.HostConfig, config, options)
  return mounts.apply(body.HostConfig, context, options)
end

local function sorted_env(env)
  local list = {}
  for name, value in pairs(env) do list[#list + 1] = name .. "=" .. value end
  table.sort(list)
  return list
end

local function command_of(task)
  if not task.config.command then return nil end
  return { task.config.command, table.unpack(task.config.args or {}) }
end

--- The create body of a task.
---@param context TaskContext
---@param options table<string, any>  the agent's, see options.lua
---@return table? body
---@return table? err  kind "invalid": names the option of `config` that cannot be had
function M.body(context, options)
  local task = context.resolved
  local body = {
    Image = context.image and context.image.reference.full or task.config.image,
    Cmd = command_of(task),
    Env = sorted_env(context.env),
    User = task.user,
    StopSignal = task.kill_signal, StopTimeout = math.ceil(task.kill_timeout),  -- for the engine's own stops and its shutdown
    Labels = labels.of(context),
    HostConfig = { RestartPolicy = { Name = "no" } },  -- dockrun restarts tasks by their own policy
  }
  local ok, err = add_config(body, context, options)
  if not ok then return nil, err end
  network.apply(body, context)
  return body
end

--- The signal that asks a task's container to end: the one that it was made with, else the job's, the image's, or SIGTERM.
---@param context TaskContext
---@param body? table  a create body, whose signal counts first
---@return string
function M.stop_signal(context, body)
  if body and body.StopSignal then return body.StopSignal end
  local of_image = context.image and context.image.stop_signal
  for _, signal in ipairs { context.stop_signal or "", context.resolved.kill_signal or "", of_image or "" } do
    if signal ~= "" then return signal end
  end
  return "SIGTERM"
end

return M
