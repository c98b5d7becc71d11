-- What a container sees of files: the allocation's directories, volumes and mounts.
local dirs = require "dockrun.driver.dirs"
local files = require "dockrun.driver.files"
local job_storage = require "dockrun.job.storage"
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

local M = {}

local function invalid(format, ...) return nil, runtime.error("invalid", format:format(...)) end

-- The path that the engine is to bind. Within the task's own directories it is what it really is; elsewhere it is the
-- operator's, who allowed it.
local function source_of(path, context, options)
  if options["docker.volumes.enabled"] then
    if path:sub(1, 1) == "/" then return path end
    if context.dirs then return files.path(context.dirs, path) end
  elseif context.dirs then
    return files.own(context.dirs, path)
  end
  return invalid("'%s' is relative to the task's directory, and with an engine on another host there is none", path)
end

-- z or Z, for SELinux: the engine takes it with binds alone.
local function bind(source, target, mode, label)
  local words = mode and { mode } or {}
  if label ~= "" then words[#words + 1] = label end
  return #words == 0 and source .. ":" .. target or ("%s:%s:%s"):format(source, target, table.concat(words, ","))
end

local function add_own(host, context, label)
  host.Mounts = json.array {}
  for _, mount in ipairs(dirs.mounts(context.dirs)) do
    if mount.Type == "bind" then
      local source, err = files.own(context.dirs, mount.Source)  -- a task that has bound "." could have put a link there
      if not source then return nil, err end
      mount.Source = source
    end
    if mount.Type == "bind" and label ~= "" then
      table.insert(host.Binds, bind(mount.Source, mount.Target, nil, label))
    else
      table.insert(host.Mounts, mount)
    end
  end
  return true
end

local function add_volumes(host, context, options, label)
  local config = context.task.config
  for i, text in ipairs(config.volumes or {}) do
    local volume, why = job_storage.parse(text)
    local source = volume and volume.source
    if volume and not config.volume_driver then source, why = source_of(source, context, options) end
    if not source then return invalid("config.volumes[%d]: %s", i, tostring(why)) end
    table.insert(host.Binds, bind(source, volume.target, volume.mode, label))
  end
  return true
end

-- Each kind's options as the engine wants them.
local options_of = {
  bind = function(o) return "BindOptions", { Propagation = o.propagation } end,
  tmpfs = function(o) return "TmpfsOptions", { SizeBytes = o.size, Mode = o.mode } end,
  volume = function(o)
    local driver = o.driver_config
    return "VolumeOptions", {
      NoCopy = o.no_copy, Labels = o.labels, DriverConfig = driver and { Name = driver.name, Options = driver.options },
    }
  end,
}

local function add_mounts(host, context, options)
  for i, mount in ipairs(context.task.config.mount or {}) do
    local source, err = mount.source
    if mount.type == "bind" then
      source, err = source_of(source, context, options)
      if not source then return invalid("config.mount[%d]: %s", i, tostring(err)) end
    end
    local shape = { Type = mount.type, Target = mount.target, Source = source, ReadOnly = mount.readonly }
    local given = mount[mount.type .. "_options"]
    if given then
      local name, value = options_of[mount.type](given)
      shape[name] = value
    end
    table.insert(host.Mounts, shape)
  end
  return true
end

--- Puts the task's directories, volumes and mounts into HostConfig.
---@param host table
---@param context TaskContext
---@param options table<string, any>
---@return true? ok
---@return table? err  kind "invalid"
function M.apply(host, context, options)
  local label = options["docker.volumes.selinuxlabel"]
  host.Binds = json.array {}
  local ok, err = add_own(host, context, label)
  if ok then ok, err = add_volumes(host, context, options, label) end
  if ok then ok, err = add_mounts(host, context, options) end
  return ok, err
end

return M
