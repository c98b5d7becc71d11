--- What the keys of a job mean together: read after each of them has been read alone.

local constraints = require "dockrun.job.constraint"
local json = require "dockrun.core.json"
local dependencies = require "dockrun.job.dependencies"
local ports = require "dockrun.job.ports"
local together = require "dockrun.job.together"

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
      reading.problems:add(path_of(one), ("there is another %s '%s' beside it"):format(kind, one.name))
    end
    seen[one.name or false] = true
  end
end

-- Nomad's short forms of a constraint, and what its operator needs.
local without_value = { is_set = true, is_not_set = true, distinct_hosts = true, distinct_property = true }

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
    reading.problems:add(path .. ".attribute", "is required: what is looked at")
  end
  if not one.value and not without_value[one.operator] then
    reading.problems:add(path .. ".value", "is required: what it is compared with")
  end
  local why = constraints.problem(one)
  if why then reading.problems:add(path .. ".value", why) end
end

-- What counts where a job says nothing: https://developer.hashicorp.com/nomad/docs/job-specification/restart
local restarts = {
  service = { attempts = 2, interval = 1800, delay = 15, mode = "fail" },
  batch = { attempts = 3, interval = 86400, delay = 15, mode = "fail" },
}

-- Jobs of which Nomad runs one on each host: here there is one.
local on_one_host = { system = "service", sysbatch = "batch" }

local function job_type(reading, job)
  local here = on_one_host[job.type]
  if not here then return end
  reading.problems:warn(reading.paths[job] .. ".type", ("'%s' is the same as '%s' on a single host"):format(job.type, here))
  job.type = here
end

-- A policy, with what it leaves out taken from the one around it.
local function restart(reading, policy, around)
  local whole = { attempts = around.attempts, interval = around.interval, delay = around.delay, mode = around.mode }
  for key, value in pairs(policy or {}) do whole[key] = value end
  if policy and whole.attempts * whole.delay > whole.interval then
    reading.problems:warn(reading.paths[policy], ("%d attempts with a delay of %g s never happen within %g s"):format(
      whole.attempts, whole.delay, whole.interval))
  end
  return whole
end

-- As Nomad 0.1: a command with blanks is split on them where there are no args; args alone mean nothing.
local function command(reading, config)
  if config.args and not config.command then
    reading.problems:warn(reading.paths[config] .. ".args", "ignored, as there is no command")
    config.args = nil
  elseif config.command and not config.args and config.command:find "%s" then
    local words = json.array {}
    for word in config.command:gmatch "%S+" do words[#words + 1] = word end
    config.command = table.remove(words, 1)
    config.args = #words > 0 and words or nil
  end
end

-- How many allocations it has: what costs memory, containers and time from here on.
local function allocations(reading, job)
  local total, most = 0, reading.problems.most_allocs
  for _, group in ipairs(job.groups) do
    total = total + (group.count or 0) + 0.0  -- a sum of integers would wrap
    if total > most then
      reading.problems:add((reading.paths[group] or reading.paths[job]) .. ".count",
        ("makes %.0f allocations of the job, and limits.allocs_per_job is %d"):format(total, most))
      return
    end
  end
end

--- Applies them all to a job.
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
      together.task(reading, task)
    end
  end
  for _, level in ipairs(levels) do
    for _, one in ipairs(level.constraints or {}) do constraint(reading, one) end
  end
  ports.job(reading, job)
  for _, group in ipairs(job.groups) do dependencies.group(reading, group) end
end

return M
