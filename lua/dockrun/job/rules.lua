--- Rules about several keys of a job together, and defaults that depend on another key. They are applied after normalise.lua
--- has read each key alone. Errors and warnings go to the reading's `problems`; the job is changed in place.
---
--- A replacement of this file must have `job`.

local constraints = require "dockrun.job.constraint"
local json = require "dockrun.core.json"
local dependencies = require "dockrun.job.dependencies"
local ports = require "dockrun.job.ports"

local M = {}

-- A task directly under the job is a group of its own name.
local function adopt(job)
  for _, task in ipairs(job.tasks or {}) do
    table.insert(job.groups, {
      name = task.name, count = 1, meta = {}, constraints = json.array {}, hooks = {}, tasks = json.array { task },
    })
  end
  job.tasks = nil
end

local function unique(reading, siblings, kind, path_of)
  local seen = {}
  for _, one in ipairs(siblings) do
    if one.name and seen[one.name] then
      reading.problems:add(path_of(one), ("another %s has the name '%s'; rename one of them"):format(kind, one.name))
    end
    seen[one.name or false] = true
  end
end

-- Operators that compare with no value.
local without_value = { is_set = true, is_not_set = true, distinct_hosts = true, distinct_property = true }

-- Replaces Nomad's short forms: { version = ">= 1" } -> { operator = "version", value = ">= 1" }.
local function constraint(reading, one)
  for _, operator in ipairs { "version", "regexp", "set_contains" } do
    if one[operator] then one.operator, one.value = operator, one[operator] end
    one[operator] = nil
  end
  if one.distinct_hosts ~= nil then one.operator, one.value = "distinct_hosts", tostring(one.distinct_hosts) end
  if one.distinct_property then one.operator, one.attribute = "distinct_property", one.distinct_property end
  one.distinct_hosts, one.distinct_property = nil, nil
  local path = reading.paths[one]
  if not one.attribute and one.operator ~= "distinct_hosts" then
    reading.problems:add(path .. ".attribute", "is required: the attribute of the host to compare")
  end
  if not one.value and not without_value[one.operator] then
    reading.problems:add(path .. ".value", "is required: the value to compare the attribute with")
  end
  local why = constraints.problem(one)
  if why then reading.problems:add(path .. ".value", why) end
end

-- The defaults of a restart policy: https://developer.hashicorp.com/nomad/docs/job-specification/restart
local restarts = {
  service = { attempts = 2, interval = 1800, delay = 15, mode = "fail" },
  batch = { attempts = 3, interval = 86400, delay = 15, mode = "fail" },
}

-- Nomad runs one such job on each host; here there is one host.
local on_one_host = { system = "service", sysbatch = "batch" }

local function job_type(reading, job)
  local here = on_one_host[job.type]
  if not here then return end
  reading.problems:warn(reading.paths[job] .. ".type", ("'%s' is the same as '%s' on a single host"):format(job.type, here))
  job.type = here
end

-- A restart policy; a key that it leaves out is taken from the policy of the level above.
local function restart(reading, policy, around)
  local whole = { attempts = around.attempts, interval = around.interval, delay = around.delay, mode = around.mode }
  for key, value in pairs(policy or {}) do whole[key] = value end
  if policy and whole.attempts * whole.delay > whole.interval then
    reading.problems:warn(reading.paths[policy], ("%d attempts with a delay of %g s never fit into %g s; the limit has no effect"):format(
      whole.attempts, whole.delay, whole.interval))
  end
  return whole
end

-- As Nomad 0.1: without args, a command is split at its blanks; args without a command are ignored.
local function command(reading, config)
  if config.args and not config.command then
    reading.problems:warn(reading.paths[config] .. ".args", "ignored, because there is no command")
    config.args = nil
  elseif config.command and not config.args and config.command:find "%s" then
    local words = json.array {}
    for word in config.command:gmatch "%S+" do words[#words + 1] = word end
    config.command = table.remove(words, 1)
    config.args = #words > 0 and words or nil
  end
end

-- Networks that the engine has by itself; they support neither fixed addresses nor aliases.
local engine_networks = { default = true, bridge = true, host = true, none = true }

local function network(config, _, complain)
  if not engine_networks[config.network_mode] then return end
  for _, key in ipairs { "ipv4_address", "ipv6_address", "network_aliases" } do
    if config[key] then
      complain(config, key, ("needs a network of your own, but network_mode is '%s'"):format(config.network_mode))
    end
  end
end

local mount_options = { bind = "bind_options", tmpfs = "tmpfs_options", volume = "volume_options" }

local function mounts(config, _, complain)
  for _, mount in ipairs(config.mount or {}) do
    local kind = mount.type
    if kind == "bind" and not mount.source then complain(mount, "source", "is required: the path on the host") end
    if kind == "tmpfs" and mount.source then complain(mount, "source", "has no meaning for a tmpfs mount; leave it out") end
    for other, key in pairs(mount_options) do
      if mount[key] and mount_options[kind] and other ~= kind then
        complain(mount, key, ("has no meaning for a %s mount; leave it out"):format(kind))
      end
    end
  end
end

local function volume_driver(config, _, complain)
  if config.volume_driver and not config.volumes then complain(config, "volume_driver", "has no meaning without volumes") end
end

local function memory(config, resources, complain)
  local hard, reserved = config.memory_hard_limit, resources.memory
  if hard and hard > 0 and reserved and hard < reserved then
    complain(config, "memory_hard_limit", ("must be at least resources.memory, which is %d; got %d"):format(reserved, hard))
  end
end

-- The rules about one task's `config` and `resources`, in the order of their errors.
local task_rules = { network, mounts, volume_driver, memory }

local function task_options(reading, task)
  local function complain(block, key, message) reading.problems:add(("%s.%s"):format(reading.paths[block], key), message) end
  for _, rule in ipairs(task_rules) do rule(task.config or {}, task.resources or {}, complain) end
end

-- Limits the number of allocations: each costs memory, time and containers.
local function allocations(reading, job)
  local total, most = 0, reading.problems.most_allocs
  for _, group in ipairs(job.groups) do
    total = total + (group.count or 0) + 0.0  -- a sum of integers would wrap
    if total > most then
      reading.problems:add((reading.paths[group] or reading.paths[job]) .. ".count",
        ("brings the job to %.0f allocations, but limits.allocs_per_job is %d"):format(total, most))
      return
    end
  end
end

--- Applies all rules to a job.
---@param reading Reading
---@param job table
function M.job(reading, job)
  adopt(job)
  allocations(reading, job)
  job_type(reading, job)
  unique(reading, job.groups, "group", function(group) return reading.paths[group] or reading.paths[group.tasks[1]] end)
  local levels = { job }
  for _, group in ipairs(job.groups) do
    levels[#levels + 1] = group
    group.restart = restart(reading, group.restart, restarts[job.type] or restarts.service)
    unique(reading, group.tasks, "task", function(task) return reading.paths[task] end)
    for _, task in ipairs(group.tasks) do
      levels[#levels + 1] = task
      task.restart = restart(reading, task.restart, group.restart)
      command(reading, task.config or {})
      task_options(reading, task)
    end
  end
  for _, level in ipairs(levels) do
    for _, one in ipairs(level.constraints or {}) do constraint(reading, one) end
  end
  ports.job(reading, job)
  for _, group in ipairs(job.groups) do dependencies.group(reading, group) end
end

return M
