--- Rows of `config` about files: volumes, mounts, devices.

local validators = require "dockrun.job.validators"
local types = require "dockrun.job.types"

local M = {}

local options = {
  { name = "name", type = "string", check = validators.not_blank, engine = "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name",
    doc = "the volume driver" },
  { name = "options", type = "map", of = "string", engine = "HostConfig.Mounts[].VolumeOptions.DriverConfig.Options",
    doc = "options of the volume driver" },
}

local volume_options = {
  { name = "no_copy", type = "boolean", default = false, engine = "HostConfig.Mounts[].VolumeOptions.NoCopy",
    doc = "do not copy the files of the image into a new volume" },
  { name = "labels", type = "map", of = "string", engine = "HostConfig.Mounts[].VolumeOptions.Labels", doc = "labels of a new volume" },
  { name = "driver_config", type = "block", rows = options, doc = "driver of a new volume" },
}

local tmpfs_options = {
  { name = "size", type = "integer", check = validators.range(0), engine = "HostConfig.Mounts[].TmpfsOptions.SizeBytes",
    doc = "size in bytes" },
  { name = "mode", type = "mode", engine = "HostConfig.Mounts[].TmpfsOptions.Mode", doc = "mode of the directory, such as '0755'" },
}

local bind_options = {
  { name = "propagation", type = "string", engine = "HostConfig.Mounts[].BindOptions.Propagation",
    check = validators.one_of("private", "rprivate", "shared", "rshared", "slave", "rslave"),
    doc = "private, rprivate, shared, rshared, slave or rslave" },
}

---@type SchemaRow[]
M.mount = {
  { name = "type", type = "string", default = "volume", check = validators.one_of("volume", "bind", "tmpfs"),
    engine = "HostConfig.Mounts[].Type", doc = "volume, bind or tmpfs" },
  { name = "target", type = "string", required = true, check = validators.absolute_path, engine = "HostConfig.Mounts[].Target",
    doc = "path in the container" },
  { name = "source", type = "string", check = validators.not_blank, engine = "HostConfig.Mounts[].Source",
    doc = "name of a volume, or path on the host (relative: in the task's directory)" },
  { name = "readonly", type = "boolean", default = false, engine = "HostConfig.Mounts[].ReadOnly", doc = "mount it read-only" },
  { name = "bind_options", type = "block", rows = bind_options, doc = "options of a bind mount" },
  { name = "tmpfs_options", type = "block", rows = tmpfs_options, doc = "options of a tmpfs mount" },
  { name = "volume_options", type = "block", rows = volume_options, doc = "options of a volume mount" },
}

-- The modes of a volume that the engine knows; commas separate several.
local modes = {}
for mode in ([[ro rw z Z nocopy private rprivate shared rshared slave rslave consistent cached delegated]]):gmatch "%S+" do
  modes[mode] = true
end

--- Parses a volume: "/data:/srv:ro" -> { source = "/data", target = "/srv", mode = "ro" }.
---@param text string
---@return { source: string, target: string, mode?: string }? volume
---@return string? why
function M.parse(text)
  local source, target, mode = text:match "^([^:]+):(/[^:]*)$"
  if not source then source, target, mode = text:match "^([^:]+):(/[^:]*):([%w,]+)$" end
  if not source then
    return nil, ("must be 'source:target' or 'source:target:mode', the target absolute, got %s"):format(types.show(text))
  end
  for part in (mode or "ro"):gmatch "[^,]*" do
    if not modes[part] then return nil, ("'%s' is not a mode of a volume, such as ro or rw, in %s"):format(part, types.show(text)) end
  end
  return { source = source, target = target, mode = mode }
end

---@type Check
function M.volume(value)
  if validators.is_open(value) then return nil end
  local _, why = M.parse(value)
  return why
end

---@type SchemaRow[]
M.device = {
  { name = "host_path", type = "string", required = true, check = validators.absolute_path, engine = "HostConfig.Devices[].PathOnHost",
    doc = "the device on the host" },
  { name = "container_path", type = "string", check = validators.absolute_path, engine = "HostConfig.Devices[].PathInContainer",
    doc = "path in the container; left out, the same" },
  { name = "cgroup_permissions", type = "string", default = "rwm", check = validators.matches("some of r, w and m", "[rwm][rwm]?[rwm]?"),
    engine = "HostConfig.Devices[].CgroupPermissions", doc = "r: read, w: write, m: mknod" },
}

return M
