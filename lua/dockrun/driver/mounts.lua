--- The mounts of a container: the allocation's directories, volumes and mounts. Which of them a job may have: policy.lua.
local allocdir = require "dockrun.driver.allocdir"
local paths = require "dockrun.driver.paths"
local job_storage = require "dockrun.job.schema.mounts"
local json = require "dockrun.core.json"
local bind_sources = require "dockrun.driver.bind_sources"
local runtime = require "dockrun.core.runtime"

local M = {}

local function invalid(format, ...) return nil, runtime.error("invalid", format:format(...)) end

-- The source of a bind: a bind source if the path is in the task's own directories, else a path of the host, which the
-- operator must have allowed.
local function source_of(path, context, options, sources)
  if sources and paths.is_own(context.dirs, path) then
    local own, err = sources:make(path)
    return own and { own = own }, err
  end
  local allowed = options["docker.volumes.enabled"]
  if allowed and path:sub(1, 1) == "/" then return { path = path } end
  if allowed and sources then return { path = paths.path(context.dirs, path) } end
  if sources then return invalid("%s leads out of the task's directories", path) end
  return invalid("'%s' is relative, but with an engine on another host a task has no directory; use an absolute path", path)
end

-- All mounts of a task: the source of each bind, and the target of each mount.
local function mounts_of(task)
  local config, list = task.config, {}
  for _, text in ipairs(config.volumes or {}) do
    local volume = job_storage.parse(text)
    list[#list + 1] = volume and { source = not config.volume_driver and volume.source or nil, target = volume.target }
  end
  for _, mount in ipairs(config.mount or {}) do
    list[#list + 1] = { source = mount.type == "bind" and mount.source or nil, target = mount.target }
  end
  return list
end

-- label: z or Z, for SELinux; the engine takes it in Binds only.
local function bind(source, target, mode, label)
  local words = mode and { mode } or {}
  if label ~= "" then words[#words + 1] = label end
  return #words == 0 and source .. ":" .. target or ("%s:%s:%s"):format(source, target, table.concat(words, ","))
end

-- Adds a mount: put(source, target) is called for it, and, if it is a bind source, for the bind sources in it.
local function add(wanted, source, target, put)
  target = paths.clean(target)
  wanted.taken[target] = true
  wanted[#wanted + 1] = { source = source, target = target, put = put }
end

local function add_own(wanted, host, context, label)
  for _, mount in ipairs(allocdir.mounts(context.dirs)) do
    local own = mount.Type == "bind" and paths.inner(context.dirs, mount.Source)
    add(wanted, own and { own = own } or {}, mount.Target, function(source, target)
      if source and label ~= "" then
        table.insert(host.Binds, bind(source, target, nil, label))
      else
        table.insert(host.Mounts, { Type = mount.Type, Source = source, Target = target, TmpfsOptions = mount.TmpfsOptions })
      end
    end)
  end
end

local function add_volumes(wanted, host, context, options, label, sources)
  local config = context.resolved.config
  for i, text in ipairs(config.volumes or {}) do
    local volume, why = job_storage.parse(text)
    local source = volume and { path = volume.source }
    if volume and not config.volume_driver then source, why = source_of(volume.source, context, options, sources) end
    if not source then return invalid("config.volumes[%d]: %s", i, tostring(why)) end
    add(wanted, source, volume.target, function(path, target)
      table.insert(host.Binds, bind(path, target, volume.mode, label))
    end)
  end
  return true
end

-- The options of each kind in the engine's shape.
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

local function add_mounts(wanted, host, context, options, sources)
  for i, mount in ipairs(context.resolved.config.mount or {}) do
    local source = { path = mount.source }
    if mount.type == "bind" then
      local err
      source, err = source_of(mount.source, context, options, sources)
      if not source then return invalid("config.mount[%d]: %s", i, tostring(err)) end
    end
    local given, name, value = mount[mount.type .. "_options"], nil, nil
    if given then name, value = options_of[mount.type](given) end
    add(wanted, source, mount.target, function(path, target)
      local shape = { Type = mount.type, Target = target, Source = path, ReadOnly = mount.readonly }
      if name then shape[name] = value end
      table.insert(host.Mounts, shape)
    end)
  end
  return true
end

local MOST = 1000  -- mounts of a task

local function too_many()
  return invalid("config.volumes and config.mount need more than %d mounts, with the mounts inside of binds", MOST)
end

local function put_all(wanted, sources)
  local count = 0
  for _, one in ipairs(wanted) do
    local list = one.source.own and sources:binds(one.source.own, one.target, wanted.taken)
    count = count + (list and #list or 1)
    if count > MOST then return too_many() end
    for _, each in ipairs(list or {}) do one.put(sources:path(each.source), each.target) end
    if not list then one.put(one.source.path, one.target) end
  end
  return true
end

-- nil if the engine is on another host.
local function open(context)
  if context.dirs then return bind_sources.open(context.dirs) end
end

--- Puts the task's directories, volumes and mounts into HostConfig.
---@param host table
---@param context TaskContext
---@param options table<string, any>
---@return true? ok
---@return table? err  kind "invalid"
function M.apply(host, context, options)
  local label = options["docker.volumes.selinuxlabel"]
  if #mounts_of(context.resolved) > MOST then return too_many() end
  local sources <close>, problem = open(context)
  if problem then return nil, problem end
  host.Binds, host.Mounts = json.array {}, json.array {}
  local wanted = { taken = {} }
  if sources then sources:make_shared(context.resolved, context.group, mounts_of) end
  add_own(wanted, host, context, label)
  local ok, err = add_volumes(wanted, host, context, options, label, sources)
  if ok then ok, err = add_mounts(wanted, host, context, options, sources) end
  if ok and sources then ok, err = sources:make_mountpoints(mounts_of(context.resolved)) end
  if ok then ok, err = put_all(wanted, sources) end
  context.moved = sources and sources.moved
  return ok, err
end

return M
