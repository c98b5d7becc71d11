-- What a container sees of paths: the allocation's directories, volumes and mounts.
local allocdir = require "dockrun.driver.allocdir"
local paths = require "dockrun.driver.paths"
local job_storage = require "dockrun.job.schema.mounts"
local json = require "dockrun.core.json"
local places_of = require "dockrun.driver.places"
local runtime = require "dockrun.core.runtime"

local M = {}

local function invalid(format, ...) return nil, runtime.error("invalid", format:format(...)) end

-- What the engine is to bind: a place, if it is in the task's own directories; else a path of the host, which is the
-- operator's, who allowed it.
local function source_of(path, context, options, places)
  if places and paths.is_own(context.dirs, path) then
    local place, err = places:make(path)
    return place and { place = place }, err
  end
  local allowed = options["docker.volumes.enabled"]
  if allowed and path:sub(1, 1) == "/" then return { path = path } end
  if allowed and places then return { path = paths.path(context.dirs, path) } end
  if places then return invalid("%s leads out of the task's directories", path) end
  return invalid("'%s' is relative to the task's directory, and with an engine on another host there is none", path)
end

-- What a task mounts: the paths that it binds, and the targets of all else.
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

-- z or Z, for SELinux: the engine takes it with binds alone.
local function bind(source, target, mode, label)
  local words = mode and { mode } or {}
  if label ~= "" then words[#words + 1] = label end
  return #words == 0 and source .. ":" .. target or ("%s:%s:%s"):format(source, target, table.concat(words, ","))
end

-- Adds what is to be seen at a target: put(source, target) for it, and, if it is a place, for the places in it.
local function add(wanted, source, target, put)
  target = paths.clean(target)
  wanted.taken[target] = true
  wanted[#wanted + 1] = { source = source, target = target, put = put }
end

local function add_own(wanted, host, context, label)
  for _, mount in ipairs(allocdir.mounts(context.dirs)) do
    local place = mount.Type == "bind" and paths.inner(context.dirs, mount.Source)
    add(wanted, place and { place = place } or {}, mount.Target, function(source, target)
      if source and label ~= "" then
        table.insert(host.Binds, bind(source, target, nil, label))
      else
        table.insert(host.Mounts, { Type = mount.Type, Source = source, Target = target, TmpfsOptions = mount.TmpfsOptions })
      end
    end)
  end
end

local function add_volumes(wanted, host, context, options, label, places)
  local config = context.task.config
  for i, text in ipairs(config.volumes or {}) do
    local volume, why = job_storage.parse(text)
    local source = volume and { path = volume.source }
    if volume and not config.volume_driver then source, why = source_of(volume.source, context, options, places) end
    if not source then return invalid("config.volumes[%d]: %s", i, tostring(why)) end
    add(wanted, source, volume.target, function(path, target)
      table.insert(host.Binds, bind(path, target, volume.mode, label))
    end)
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

local function add_mounts(wanted, host, context, options, places)
  for i, mount in ipairs(context.task.config.mount or {}) do
    local source = { path = mount.source }
    if mount.type == "bind" then
      local err
      source, err = source_of(mount.source, context, options, places)
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
  return invalid("config.volumes and config.mount make more than %d mounts, with those in what they bind", MOST)
end

local function put_all(wanted, places)
  local count = 0
  for _, one in ipairs(wanted) do
    local list = one.source.place and places:binds(one.source.place, one.target, wanted.taken)
    count = count + (list and #list or 1)
    if count > MOST then return too_many() end
    for _, each in ipairs(list or {}) do one.put(places:path(each.place), each.target) end
    if not list then one.put(one.source.path, one.target) end
  end
  return true
end

-- None if the engine is on another host.
local function open(context)
  if context.dirs then return places_of.open(context.dirs) end
end

--- Puts the task's directories, volumes and mounts into HostConfig.
---@param host table
---@param context TaskContext
---@param options table<string, any>
---@return true? ok
---@return table? err  kind "invalid"
function M.apply(host, context, options)
  local label = options["docker.volumes.selinuxlabel"]
  if #mounts_of(context.task) > MOST then return too_many() end
  local places <close>, problem = open(context)
  if problem then return nil, problem end
  host.Binds, host.Mounts = json.array {}, json.array {}
  local wanted = { taken = {} }
  if places then places:make_shared(context.task, context.group, mounts_of) end
  add_own(wanted, host, context, label)
  local ok, err = add_volumes(wanted, host, context, options, label, places)
  if ok then ok, err = add_mounts(wanted, host, context, options, places) end
  if ok and places then ok, err = places:make_mountpoints(mounts_of(context.task)) end
  if ok then ok, err = put_all(wanted, places) end
  context.moved = places and places.moved
  return ok, err
end

return M
