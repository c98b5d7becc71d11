--- The attributes of this node, for constraints, interpolation and `dockrun fingerprint`.
local cgroup = require "dockrun.core.cgroup"
local fs = require "dockrun.util.fs"
local uv = require "luv"

local M = {}

-- The interface of the default route: the row of /proc/net/route with destination and mask 0, lowest metric.
local function default_interface()
  local best, best_metric
  for line in (fs.read "/proc/net/route" or ""):gmatch "[^\n]+" do
    local name, destination, metric, mask = line:match "^(%S+)%s+(%x+)%s+%x+%s+%x+%s+%d+%s+%d+%s+(%d+)%s+(%x+)"
    if destination == "00000000" and mask == "00000000" and (not best or tonumber(metric) < best_metric) then
      best, best_metric = name, tonumber(metric)
    end
  end
  return best
end

--- The IPv4 address of the default route's interface; without one, of the first interface that is not loopback.
---@return string address  "127.0.0.1" if the host has no other
function M.address()
  local interfaces = uv.interface_addresses() or {}
  local names = {}
  for name in pairs(interfaces) do names[#names + 1] = name end
  table.sort(names)
  table.insert(names, 1, default_interface())
  for _, name in ipairs(names) do
    for _, address in ipairs(interfaces[name] or {}) do
      if address.family == "inet" and not address.internal then return address.ip end
    end
  end
  return "127.0.0.1"
end

--- The host's compute in MHz: cores times the clock that the kernel reports (Nomad's cpu.totalcompute).
---@return integer mhz
---@return integer cores
function M.compute()
  local cores = uv.cpu_info() or {}
  local mhz = 0
  for _, core in ipairs(cores) do mhz = mhz + (core.speed > 0 and core.speed or 1000) end
  return math.floor(mhz), #cores
end

-- Go's names of machines, which Nomad uses.
local architectures = { x86_64 = "amd64", aarch64 = "arm64", i686 = "386", armv7l = "arm", armv6l = "arm" }

-- os-release(5)
local function add_os(attributes)
  local text = fs.read "/etc/os-release" or fs.read "/usr/lib/os-release"
  if not text then return end
  text = "\n" .. text
  attributes["os.name"] = text:match '\nID="?([^"\n]*)'
  attributes["os.version"] = text:match '\nVERSION_ID="?([^"\n]*)'
end

local function host(attributes)
  local uname = uv.os_uname()
  local mhz, cores = M.compute()
  attributes["kernel.name"] = uname.sysname:lower()
  attributes["kernel.version"] = uname.release
  attributes["arch"] = architectures[uname.machine] or uname.machine
  attributes["cpu.arch"] = attributes["arch"]
  add_os(attributes)
  attributes["cpu.totalcompute"] = mhz
  attributes["cpu.numcores"] = cores
  attributes["memory.totalbytes"] = math.floor(uv.get_total_memory())
  attributes["unique.hostname"] = uv.os_gethostname()
  attributes["unique.network.ip-address"] = M.address()
end

-- Whether root in a container is another user of the host: dockerd --userns-remap.
local function maps_users(info)
  for _, option in ipairs(type(info.SecurityOptions) == "table" and info.SecurityOptions or {}) do
    if tostring(option):find("name=userns", 1, true) then return true end
  end
  return false
end

local function engine_attributes(attributes, engine, options)
  local version = engine:version()
  local info = version and engine:info()
  if not info then return end
  attributes["driver.docker"] = "1"
  attributes["driver.docker.version"] = version.Version
  attributes["driver.docker.api_version"] = engine:api()
  attributes["driver.docker.os_type"] = info.OSType
  attributes["driver.docker.cgroup_version"] = info.CgroupVersion or tostring(cgroup.version())
  attributes["driver.docker.userns"] = tostring(maps_users(info))
  local runtimes = {}
  for name in pairs(info.Runtimes or {}) do runtimes[#runtimes + 1] = name end
  table.sort(runtimes)
  attributes["driver.docker.runtimes"] = table.concat(runtimes, ",")
  attributes["driver.docker.privileged.enabled"] = tostring(options["docker.allow_privileged"])
  attributes["driver.docker.volumes.enabled"] = tostring(options["docker.volumes.enabled"])
  local bridge = engine:network_inspect("bridge")
  local pool = bridge and bridge.IPAM and bridge.IPAM.Config and bridge.IPAM.Config[1]
  if pool and pool.Gateway then attributes["driver.docker.bridge_ip"] = pool.Gateway end
end

--- Every attribute of the node. No engine, no `driver.docker…`, and no error.
---@param engine? table
---@param options? table<string, any>  the agent's, see options.lua; needed with an engine
---@return table<string, string|integer> attributes
function M.attributes(engine, options)
  local attributes = {}
  host(attributes)
  if engine then engine_attributes(attributes, engine, options) end
  return attributes
end

return M
