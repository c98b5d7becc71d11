--- Resource usage of containers, read from their cgroup files. The engine is asked once for each container.
local cgroup = require "dockrun.core.cgroup"
local container_cgroup = require "dockrun.driver.cgroup"
local runtime = require "dockrun.core.runtime"

local M = {}

local NOTHING = { memory = {}, cpu = {}, pids = {} }  -- as cgroup.read() of a group without any file

---@class Reader
---@field engine table
---@field root? table                  the roots of the cgroup trees, as for cgroup.find()
---@field groups table<string, table>  cgroups by container id
local Reader = {}
Reader.__index = Reader

--- A reader for the containers of an engine on this host.
---@param engine table
---@param root? { cgroup?: string, proc?: string }  as for cgroup.find()
---@return Reader
function M.new(engine, root) return setmetatable({ engine = engine, root = root, groups = {} }, Reader) end

---@class Reading
---@field at number   runtime.now()
---@field stat table  core/host/cgroup.h

--- A container's figures at this moment; nil if it does not run, or is ending. A figure that the kernel does not
--- count for the container is absent; so are all if it has no cgroup of its own.
---@param id string
---@return Reading?
function Reader:read(id)
  local group, running = self.groups[id], true
  if not group then group, running = container_cgroup.of(self.engine, id, self.root) end
  if not running then return end
  local stat = NOTHING
  if group then stat = cgroup.read(group) end
  self.groups[id] = stat and group
  return stat and { at = runtime.now(), stat = stat }
end

---@class Usage
---@field memory? integer         bytes, without the page cache that the kernel takes back first, as `docker stats` counts
---@field memory_limit? integer   bytes
---@field oom_kills? integer
---@field pids? integer
---@field throttled_seconds? number
---@field cpu_percent? number     of one core, between two readings
---@field pressure? table<"cpu"|"memory"|"io", table<"some"|"full", Pressure>>

--- The share of time in which a process (some) or all processes (full) of the container waited for the resource.
---@class Pressure
---@field avg10 number   percent of the last 10 seconds
---@field avg60 number   percent
---@field avg300 number  percent
---@field total number   seconds

---@param now Reading
---@param before? Reading
---@return Usage
function M.summarise(now, before)
  local cpu, memory = now.stat.cpu, now.stat.memory
  local usage = {
    memory = memory.usage and memory.usage - (memory.inactive_file or 0), memory_limit = memory.limit,
    oom_kills = memory.oom_kills, pids = now.stat.pids.current, throttled_seconds = cpu.throttled, pressure = now.stat.pressure,
  }
  local used = before and cpu.usage and before.stat.cpu.usage and cpu.usage - before.stat.cpu.usage
  if used and used >= 0 then usage.cpu_percent = used / (now.at - before.at) * 100 end  -- below 0: restarted meanwhile
  return usage
end

return M
