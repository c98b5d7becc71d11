--- What containers use, read from their cgroup files: no load on the engine, however many there are.
local cgroup = require "dockrun.core.cgroup"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Reader
---@field engine table
---@field groups table<string, table>  where a container's cgroup is, by container id: asked for once
local Reader = {}
Reader.__index = Reader

--- A reader for the containers of an engine on this host.
---@param engine table
---@return Reader
function M.new(engine) return setmetatable({ engine = engine, groups = {} }, Reader) end

---@class Reading
---@field at number   runtime.now()
---@field stat table  core/cgroup.h

--- A container's figures at this moment; nil where it does not run, or is just going.
---@param id string
---@return Reading?
function Reader:read(id)
  if not self.groups[id] then
    local found = self.engine:container_inspect(id)
    local pid = found and found.State.Pid or 0
    self.groups[id] = pid > 0 and cgroup.find(pid) or nil
  end
  local stat = self.groups[id] and cgroup.read(self.groups[id])
  if stat and stat.cpu.usage and stat.memory.usage then return { at = runtime.now(), stat = stat } end
  self.groups[id] = nil
end

---@class Usage
---@field memory integer          bytes, without the page cache that the kernel takes back first, as `docker stats` counts
---@field memory_limit? integer   bytes
---@field oom_kills? integer
---@field pids? integer
---@field throttled_seconds? number
---@field cpu_percent? number     of one core, between two readings

---@param now Reading
---@param before? Reading
---@return Usage
function M.summarise(now, before)
  local cpu, memory = now.stat.cpu, now.stat.memory
  local usage = {
    memory = memory.usage - (memory.inactive_file or 0), memory_limit = memory.limit, oom_kills = memory.oom_kills,
    pids = now.stat.pids.current, throttled_seconds = cpu.throttled,
  }
  local used = before and cpu.usage - before.stat.cpu.usage
  if used and used >= 0 then usage.cpu_percent = used / (now.at - before.at) * 100 end  -- below 0: restarted meanwhile
  return usage
end

return M
