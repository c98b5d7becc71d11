--- What a task may use, in the engine's words and back: the one file that knows which field of a job is which field of
--- HostConfig (Engine API v1.41, Resources), and which of them the engine changes in a container that runs.
---
---   resources.memory = 64                            <-> Memory = 67108864, MemorySwap = 67108864
---   resources.memory = 64, memory_hard_limit = 128   <-> Memory = MemorySwap = 134217728, MemoryReservation = 67108864
---   resources.cpu = 500                              <-> CpuShares = 500
---
--- It asks nothing of the engine: docker.lua does. A replacement has the functions to_engine, update_body, from_engine,
--- can_update and quota_from_mhz.
local runtime = require "dockrun.core.runtime"
local fingerprint = require "dockrun.driver.fingerprint"
local validators = require "dockrun.job.validators"
local tables = require "dockrun.util.tables"

local M = {}

local MB = 1024 * 1024

local function positive(value) return value and value > 0 and value or nil end

-- ---- MHz --------------------------------------------------------------------------------------

-- What the kernel accepts (kernel/sched): MIN_SHARES, MAX_SHARES; min_cfs_quota_period, max_cfs_quota_period (us).
local LEAST_SHARES, MOST_SHARES = 2, 262144
local LEAST_QUOTA, LONGEST_PERIOD = 1000, 1000000

local function invalid(message, ...) return nil, runtime.error("invalid", message:format(...)) end

--- One MHz is one share, so that 1000 is about a core of 1 GHz:  500 -> 500,  1 -> 2
---@param mhz integer
---@return integer shares  within the kernel's bounds
function M.shares_from_mhz(mhz) return math.max(LEAST_SHARES, math.min(mhz, MOST_SHARES)) end

--- The quota of a hard limit, as Nomad's docker driver computes it (drivers/docker/driver.go, cpu_hard_limit): the task's
--- part of one period, times the number of cores, because the quota counts the time of all cores.
---   1000 of 4000 MHz, 100000 us, 2 cores -> 50000
---@param mhz integer
---@param host { mhz: integer, cores: integer }
---@param period integer  microseconds
---@return integer? quota  microseconds in each period
---@return table? err      kind "invalid"
function M.quota_from_mhz(mhz, host, period)
  if period < LEAST_QUOTA or period > LONGEST_PERIOD then
    return invalid("cpu_cfs_period must be within %d to %d, got %d", LEAST_QUOTA, LONGEST_PERIOD, period)
  elseif mhz < 1 or mhz > host.mhz then
    return invalid("cpu must be within 1 and the host's %d MHz, got %d", host.mhz, mhz)
  end
  local quota = mhz * period // host.mhz * host.cores
  if quota >= LEAST_QUOTA then return quota end
  return invalid("cpu of %d MHz is a quota of %d us per %d us, and the kernel accepts at least %d; ask for more cpu, or set a longer "
    .. "cpu_cfs_period", mhz, quota, period, LEAST_QUOTA)
end

-- ---- job -> engine ----------------------------------------------------------------------------

-- Engine field -> key of a device.
local throttles = {
  BlkioDeviceReadBps = "read_bps", BlkioDeviceWriteBps = "write_bps",
  BlkioDeviceReadIOps = "read_iops", BlkioDeviceWriteIOps = "write_iops",
}

local function add_io(limits, io)
  limits.BlkioWeight = io.weight
  for field, key in pairs(throttles) do
    for _, device in ipairs(io.device or {}) do
      if device[key] then
        limits[field] = limits[field] or {}
        table.insert(limits[field], { Path = device.path, Rate = device[key] })
      end
    end
  end
end

--- The limits of a task as HostConfig has them and as POST /containers/{id}/update takes them (docs/job.md). A limit that
--- the job leaves out is left to the engine.
---@param task table
---@param host? { mhz: integer, cores: integer }  the host's compute; left out, this host's
---@return table? limits
---@return table? err  kind "invalid": the host cannot give it
function M.to_engine(task, host)
  local config, memory = task.config, task.resources.memory * MB
  local hard = positive(config.memory_hard_limit) and config.memory_hard_limit * MB
  local limits = {
    Memory = hard or memory, MemoryReservation = hard and memory,
    MemorySwap = hard or memory,  -- memory and swap together: no swap
    CpuShares = M.shares_from_mhz(task.resources.cpu), CpusetCpus = config.cpuset_cpus,
    PidsLimit = positive(config.pids_limit),
  }
  if config.cpu_hard_limit then
    if not host then
      local mhz, cores = fingerprint.compute()
      host = { mhz = mhz, cores = cores }
    end
    local quota, err = M.quota_from_mhz(task.resources.cpu, host, config.cpu_cfs_period)
    if not quota then return nil, err end
    limits.CpuPeriod, limits.CpuQuota = config.cpu_cfs_period, quota
  end
  add_io(limits, task.resources.io or {})
  return limits
end

--- The body of POST /containers/{id}/update that gives a running container the limits of a task. Memory and swap are set
--- together, so that either may pass the other's old limit.
---@param task table  normalised; names in it need not be filled in
---@return table? body
---@return table? err  kind "invalid"
function M.update_body(task)
  local limits, err = M.to_engine(task)
  if not limits then return nil, err end
  if validators.is_open(limits.CpusetCpus or "") then limits.CpusetCpus = nil end  -- filled in when the container was made
  if not task.config.cpu_hard_limit then limits.CpuQuota = -1 end  -- takes an earlier limit away
  limits.MemoryReservation = limits.MemoryReservation or 0
  return limits
end

-- ---- engine -> job ----------------------------------------------------------------------------

local function read_memory(task, limits)
  local reserved, most = positive(limits.MemoryReservation), limits.Memory or 0
  local hard = reserved and (reserved < most or task.config.memory_hard_limit)
  task.resources.memory = (hard and reserved or most) // MB
  task.config.memory_hard_limit = hard and most // MB or nil
end

local function read_cpu(task, limits, planned)
  -- The engine raises small values: its value may be what a job asked for.
  local shares = positive(limits.CpuShares)
  if shares and shares ~= M.shares_from_mhz(task.resources.cpu) then
    task.resources.cpu = shares == M.shares_from_mhz(planned.resources.cpu) and planned.resources.cpu or shares
  end
  task.config.cpu_hard_limit = positive(limits.CpuQuota) ~= nil
  -- Without a hard limit the period has no effect, and is no difference.
  local period = task.config.cpu_hard_limit and positive(limits.CpuPeriod)
  task.config.cpu_cfs_period = period or planned.config.cpu_cfs_period
  if not validators.is_open(planned.config.cpuset_cpus or "") then
    task.config.cpuset_cpus = limits.CpusetCpus ~= "" and limits.CpusetCpus or nil
  end
end

-- If neither task has a limit, the container's is the agent's.
local function read_pids(task, limits, planned)
  if positive(task.config.pids_limit) or positive(planned.config.pids_limit) then
    task.config.pids_limit = positive(limits.PidsLimit)
  end
end

-- A kernel without weights reports none, whatever was asked for.
local function read_weight(task, limits, planned)
  local old, new = task.resources.io or {}, planned.resources.io or {}
  local weight = positive(limits.BlkioWeight) or old.weight and new.weight
  if old.weight or weight then
    task.resources.io = old
    old.weight = weight
  end
end

--- A task with the limits that its container has now. The reverse of to_engine is not unique; of two readings, the one
--- that equals `planned` is taken.
---@param task table         as its container was made
---@param host_config table  Engine API, HostConfig of the container
---@param planned table      the task that a plan compares with
---@return table task  a copy
function M.from_engine(task, host_config, planned)
  local copy = tables.copy_data(task)
  for _, read in ipairs { read_memory, read_cpu, read_pids, read_weight } do read(copy, host_config, planned) end
  return copy
end

-- ---- in place ---------------------------------------------------------------------------------

-- Fields that the engine changes in a running container; "set": it cannot take the limit away again.
local changeable = {
  ["resources.cpu"] = "any", ["resources.memory"] = "any", ["resources.io.weight"] = "set", ["config.memory_hard_limit"] = "set",
  ["config.cpu_hard_limit"] = "any", ["config.cpu_cfs_period"] = "any", ["config.cpuset_cpus"] = "set", ["config.pids_limit"] = "set",
}

--- Whether the engine can give a field of a task a new value while the container runs.
---@param path string  below the task, such as "resources.memory"
---@param value any    nil: the field is removed
---@return boolean
function M.can_update(path, value)
  local kind = changeable[path]
  return kind == "any" or kind == "set" and value ~= nil and value ~= 0
end

return M
