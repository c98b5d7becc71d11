--- The operator's limits on jobs, checked when a job is planned and before a container is made. Each limit is an option of the
--- agent, which the refusal names. A replacement has check.
local capabilities = require "dockrun.driver.capabilities"
local paths = require "dockrun.driver.paths"
local job_files = require "dockrun.driver.job_files"
local job_storage = require "dockrun.job.schema.mounts"
local diagnostics = require "dockrun.job.diagnostics"
local tables = require "dockrun.util.tables"

local M = {}

-- "container:db" -> "container"
local function kind_of(mode) return mode:match "^[^:]+" end

local function mode(key)
  local option = "docker.allowed_modes." .. key
  return function(value, options)
    local kind = kind_of(value)
    if tables.contains(options[option], kind) or kind == "host" and options["docker.allow_privileged"] then return nil end
    return ("'%s' is not among the agent's %s"):format(value, option)
  end
end

-- Whether a path of the job may be bound: any, or one in the task's own directories.
local function path_problem(path, options, of)
  if options["docker.volumes.enabled"] or paths.is_own(of, path) then return nil end
  return ("'%s' is not in the task's own directories; the agent's docker.volumes.enabled is false"):format(path)
end

-- Whether a task's own directory would be shared with the host. The engine's mounts in it would then stay on the host, twice
-- as many after each start.
local function sharing_problem(path, propagation, of)
  if not (propagation or ""):find "shared" or not paths.is_own(of, path) then return nil end
  return ("'%s' is in the task's own directories, which cannot be shared or rshared; use private or slave"):format(path)
end

-- Whether this process may read a file for the job.
local function file_problem(path, options, of)
  if job_files.is_allowed(of, path, options) then return nil end
  return ("'%s' is neither in the task's own directories nor in the agent's job_files"):format(path)
end

-- An error of the engine shows whether the path of a device exists: a job may learn that of /dev only.
local function device_problem(path, options)
  if not path or options["docker.volumes.enabled"] or paths.within(paths.clean(path), "/dev") then return nil end
  return ("'%s' is not in /dev; the agent's docker.volumes.enabled is false"):format(path)
end

--- By option: a function that returns the problem of a value, as a text or a list of { key, text }; nil if there is none.
---@type table<string, fun(value: any, options: table, dirs: AllocDirs): (string|{ [1]: string, [2]: string }[])?>
M.rules = {
  privileged = function(value, options)
    if value and not options["docker.allow_privileged"] then return "the agent's docker.allow_privileged is false" end
  end,

  cap_add = function(value, options)
    local refused = capabilities.refused(value, options["docker.allow_caps"])
    if #refused > 0 then return ("%s: not among the agent's docker.allow_caps"):format(table.concat(refused, ", ")) end
  end,

  runtime = function(value, options)
    if not tables.contains(options["docker.allow_runtimes"], value) then
      return ("'%s' is not among the agent's docker.allow_runtimes"):format(value)
    end
  end,

  ipc_mode = mode "ipc", pid_mode = mode "pid", uts_mode = mode "uts", userns_mode = mode "userns",

  pids_limit = function(value, options)
    local most = options["docker.pids_limit"]
    if most > 0 and value > most then return ("%d is above the agent's docker.pids_limit of %g"):format(value, most) end
  end,

  oom_score_adj = function(value, options)
    local least = options["docker.oom_score_adj"]
    if value < least then return ("%d is below the agent's docker.oom_score_adj of %g"):format(value, least) end
  end,

  volume_driver = function(_, options)
    if not options["docker.volumes.enabled"] then return "the agent's docker.volumes.enabled is false" end
  end,

  volumes = function(value, options, of, config)
    local found = {}
    for i, text in ipairs(value) do
      local volume, why = job_storage.parse(text)
      if volume and not config.volume_driver then
        why = path_problem(volume.source, options, of) or sharing_problem(volume.source, volume.mode, of)
      end
      if why then found[#found + 1] = { ("[%d]"):format(i), why } end
    end
    return found
  end,

  -- The driver of a volume can use any path of the host.
  mount = function(value, options, of)
    local found = {}
    for i, one in ipairs(value) do
      local why
      if one.type == "bind" then
        why = path_problem(one.source, options, of) or sharing_problem(one.source, (one.bind_options or {}).propagation, of)
      elseif one.type ~= "tmpfs" and not options["docker.volumes.enabled"] then
        why = "volumes are not allowed; the agent's docker.volumes.enabled is false"
      end
      if why then found[#found + 1] = { ("[%d]"):format(i), why } end
    end
    return found
  end,

  devices = function(value, options)
    local found = {}
    for i, device in ipairs(value) do
      local why = device_problem(device.host_path, options)
      if why then found[#found + 1] = { ("[%d].host_path"):format(i), why } end
    end
    return found
  end,

  load = function(value, options, of) return file_problem(value, options, of) end,

  security_opt = function(value, options, of)
    local found = {}
    for i, option in ipairs(value) do
      local path = job_files.profile(option)
      local why = path and file_problem(path, options, of)
      if why then found[#found + 1] = { ("[%d]"):format(i), why } end
    end
    return found
  end,
}

local names = tables.keys(M.rules)

--- Whether the operator's options allow a task.
---@param task table                 interpolated
---@param options table<string, any> see options.lua
---@param opts? { path?: string, dirs?: AllocDirs }  the task's key path, and its directories if they exist already
---@return true? ok
---@return SpecError? err  every refusal, each with its key path and the option's name
function M.check(task, options, opts)
  opts = opts or {}
  local found, at = diagnostics.new(), opts.path or "task." .. task.name
  local path = at .. ".config."
  local of = opts.dirs or paths.planned(task.name)
  for _, name in ipairs(names) do
    local value = task.config[name]
    local refusal = value ~= nil and M.rules[name](value, options, of, task.config)
    if type(refusal) == "string" then refusal = { { "", refusal } } end
    for _, one in ipairs(refusal or {}) do found:add(path .. name .. one[1], one[2]) end
  end
  for i, device in ipairs(((task.resources or {}).io or {}).device or {}) do
    local why = device_problem(device.path, options)
    if why then found:add(("%s.resources.io.device[%d].path"):format(at, i), why) end
  end
  local err = found:error()
  if err then return nil, err end
  return true
end

return M
