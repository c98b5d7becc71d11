--- Makes the plan of a job: for each allocation, whether to create, update in place, replace, stop or keep it, and the fields
--- that force this. Changes nothing. A replacement of this file has the functions below.
local constraint = require "dockrun.job.constraint"
local labels = require "dockrun.driver.labels"
local env = require "dockrun.task.env"
local interpolate = require "dockrun.job.interpolate"
local json = require "dockrun.core.json"
local limits = require "dockrun.driver.limits"
local policy = require "dockrun.driver.policy"
local diagnostics = require "dockrun.job.diagnostics"
local revalidate = require "dockrun.job.revalidate"
local runtime = require "dockrun.core.runtime"
local tree = require "dockrun.job.tree"
local tables = require "dockrun.util.tables"

local M = {}

-- ---- whether the job can run here -------------------------------------------------------------

-- A task, interpolated as far as possible before it has ports: a dynamic port counts as 0.
local function filled(job, group, task, host, path)
  local ports = {}
  for i, port in ipairs(task.resources.network.ports) do
    ports[i] = { label = port.label, host_port = port.static or 0, container_port = port.to or port.static or 0 }
  end
  local context = {
    job = job, group = group, resolved = task, alloc = { id = ("0"):rep(8), index = 0 }, ip = host.ip or "0.0.0.0", ports = ports,
  }
  return interpolate.task(task, {
    env = env.build(context), attr = host.attr, node = host.node, meta = env.meta(job, group, task), path = path,
  })
end

-- Reports what is wrong with a task on a host, once for each place: a string that cannot be interpolated is not validated.
local function check_task(job, group, task, host, found)
  local path, reported = ("job.%s.group.%s.task.%s"):format(job.name, group.name, task.name), {}
  local function report(at, why)
    if not reported[at] then found:add(at, why) end
    reported[at] = true
  end
  local function report_all(err)
    for _, problem in ipairs(err and err.list or {}) do report(problem.path, problem.message) end
  end
  local whole, err, rest = filled(job, group, task, host, path)
  report_all(err)
  revalidate.interpolated(whole or rest, path, report)
  report_all(select(2, policy.check(whole or rest, host.options, { path = path })))
end

--- Whether a job can run on a host: checks its constraints, the names in its strings and the agent's policy. Reports all that
--- is wrong at once.
---@param job table   normalised
---@param host { attr: table, node: table, ip?: string, options: table<string, any> }
---@return true? ok
---@return SpecError? err
function M.check(job, host)
  local found = diagnostics.new()
  for _, failure in ipairs(constraint.failures(job, host)) do found:add(failure.path, failure.message) end
  for _, group in ipairs(job.groups) do
    for _, task in ipairs(group.tasks) do check_task(job, group, task, host, found) end
  end
  local err = found:error()
  if err then return nil, err end
  return true
end

-- ---- what differs -----------------------------------------------------------------------------

-- Fields that no container has: the process that watches the task reads them from the job.
local not_in_container = {
  restart = true, checks = true, constraints = true, depends_on = true, leader = true, lifecycle = true, shutdown_delay = true,
  hooks = true,
}

-- An older version stored the default of its time. A container that it made keeps that and is not replaced because of it.
local function forget_old_defaults(task, seen, new)
  local older = not seen.stop_timeout
  if older and task.kill_signal == "SIGTERM" and not new.kill_signal then task.kill_signal = nil end
end

-- The stored text of a container, from the state or its label, with the limits that the engine reports.
local function current(seen, new)
  local task = tables.copy_data(seen.row and seen.row.definition or seen.definition)
  forget_old_defaults(task, seen, new)
  return seen.limits and limits.from_engine(task, seen.limits, new) or task  -- without limits it has no container now
end

local function is_empty(value) return value == nil or value == 0 or type(value) == "table" and next(value) == nil end

local function forces(path, new) return limits.can_update(path, new) and "in_place" or "replace" end

local function compare(old, new, path, fields)
  local block = type(old) == "table" and old or type(new) == "table" and new
  if block and not tree.is_list(block) and (old == nil or new == nil) then old, new = old or {}, new or {} end
  if type(old) == "table" and type(new) == "table" then
    local keys = {}
    for key in pairs(old) do keys[key] = true end
    for key in pairs(new) do keys[key] = true end
    for _, key in ipairs(tables.keys(keys)) do
      local at = type(key) == "number" and ("%s[%d]"):format(path, key) or path == "" and key or path .. "." .. key
      if path ~= "" or not not_in_container[key] then compare(old[key], new[key], at, fields) end
    end
  elseif old ~= new and not (is_empty(old) and is_empty(new)) then
    fields[#fields + 1] = { path = path, old = old, new = new, forces = forces(path, new) }
  end
end

--- Fields in which a task differs from its container.
---@param seen Observation
---@param task table   normalised, not interpolated
---@param meta table   of job, group and task together
---@return { path: string, old: any, new: any, forces: "in_place"|"replace" }[]
function M.fields(seen, task, meta)
  local fields = {}
  if not seen.definition then return { { path = "definition", forces = "replace" } } end
  if not seen.adopt then
    fields[1] = { path = "state", old = seen.state, new = "running", forces = "replace" }
  end
  local new = json.decode(labels.definition(task, meta))
  compare(current(seen, new), new, "", fields)
  return fields
end

-- ---- the plan ---------------------------------------------------------------------------------

---@class PlanChange
---@field action "create"|"in_place"|"replace"|"stop"|"none"
---@field group string
---@field index integer
---@field task string
---@field alloc? string         that exists
---@field container_id? string
---@field fields table[]        that force it
---@field reason? string        if no field of its own forces it

---@class PlanAlloc
---@field action "create"|"keep"|"replace"|"stop"
---@field group string
---@field index integer
---@field alloc? string
---@field tasks PlanChange[]
---@field observations Observation[]

---@class Plan
---@field job string
---@field allocs PlanAlloc[]

-- A task that ends when its work is done: it need not exist.
local function is_ephemeral(task) return task.lifecycle and not task.lifecycle.sidecar end

local function plan_task(job, group, index, task, seen, can_update)
  local change = { group = group.name, index = index, task = task.name, fields = json.array {}, action = "none" }
  if not seen then
    change.action = is_ephemeral(task) and "none" or "create"
    return change
  end
  change.alloc, change.container_id = seen.alloc, seen.container_id
  if seen.state ~= "running" and is_ephemeral(task) then return change end
  change.fields = json.array(M.fields(seen, task, env.meta(job, group, task)))
  for _, field in ipairs(change.fields) do
    if change.action ~= "replace" then change.action = field.forces end
  end
  if change.action == "in_place" and not can_update() then
    change.action, change.reason = "replace", "this engine cannot change the limits of a running container"
    for _, field in ipairs(change.fields) do field.forces = "replace" end
  end
  return change
end

-- An allocation is replaced with all its tasks, or not at all.
local function plan_alloc(job, group, index, observations, can_update)
  local by_task, alloc = {}, { group = group.name, index = index, tasks = {}, observations = observations, action = "keep" }
  for _, seen in ipairs(observations) do
    by_task[seen.task], alloc.alloc = seen, seen.alloc
  end
  local known = {}
  for _, task in ipairs(group.tasks) do
    known[task.name] = true
    local change = plan_task(job, group, index, task, by_task[task.name], can_update)
    table.insert(alloc.tasks, change)
    if #observations > 0 and (change.action == "replace" or change.action == "create") then alloc.action = "replace" end
  end
  if #observations == 0 then
    alloc.action = "create"
    for _, change in ipairs(alloc.tasks) do change.action = "create" end
    return alloc
  end
  for _, seen in ipairs(observations) do
    if not known[seen.task] then
      alloc.action = "replace"
      table.insert(alloc.tasks, { action = "stop", group = group.name, index = index, task = seen.task, alloc = seen.alloc,
        container_id = seen.container_id, fields = json.array {}, reason = "the job no longer has it" })
    end
  end
  for _, change in ipairs(alloc.action == "replace" and alloc.tasks or {}) do
    if change.action == "none" or change.action == "in_place" then
      change.action, change.reason = change.container_id and "replace" or "create", "its allocation is replaced"
    end
  end
  return alloc
end

-- "group index" -> records of one allocation there. A second allocation at the same place is to be stopped, and so is
-- one whose stop had begun: returned as lists of records, one for each allocation.
local function by_place(observations)
  local places, going, by_alloc = {}, {}, {}
  for _, seen in ipairs(observations) do
    local key = seen.group .. " " .. seen.index
    local stopping = seen.meta and seen.meta.stopping
    if not stopping then places[key] = places[key] or { alloc = seen.alloc, observations = {} } end
    local list = not stopping and places[key].alloc == seen.alloc and places[key].observations or by_alloc[seen.alloc]
    if not list then
      list = { reason = stopping and "its stop had begun" or "another allocation has its place" }
      by_alloc[seen.alloc], going[#going + 1] = list, list
    end
    list[#list + 1] = seen
  end
  return places, going
end

local function stop_all(observations, reason)
  local tasks = {}
  for i, seen in ipairs(observations) do
    tasks[i] = { action = "stop", group = seen.group, index = seen.index, task = seen.task, alloc = seen.alloc,
      container_id = seen.container_id, fields = json.array {}, reason = reason }
  end
  local first = observations[1]
  return { action = "stop", group = first.group, index = first.index, alloc = first.alloc, tasks = tasks, observations = observations }
end

--- Makes the plan for a job, from what exists of it.
---@param job table            normalised
---@param observations Observation[] of this job, see observed.adoptable
---@param can_update? fun(): boolean  whether the engine changes limits in place: called at most once, if it matters; yes
---  if nil
---@return Plan
function M.make(job, observations, can_update)
  local possible
  local function once()
    if possible == nil then possible = not can_update or can_update() end
    return possible
  end
  local plan = { job = job.name, allocs = {} }
  local places, going = by_place(observations)
  for _, group in ipairs(job.groups) do
    for index = 0, group.count - 1 do
      local key = group.name .. " " .. index
      table.insert(plan.allocs, plan_alloc(job, group, index, places[key] and places[key].observations or {}, once))
      places[key] = nil
    end
  end
  local keys = {}
  for key in pairs(places) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do table.insert(plan.allocs, stop_all(places[key].observations, "the job no longer has it")) end
  for _, list in ipairs(going) do table.insert(plan.allocs, stop_all(list, list.reason)) end
  return plan
end

-- How many allocations the state gains.
local function growth(plan)
  local count = 0
  for _, alloc in ipairs(plan.allocs) do
    count = count + (alloc.action == "create" and 1 or alloc.action == "stop" and -1 or 0)
  end
  return count
end

--- Whether the allocations that a plan adds are within limits.allocs. A plan that adds none always is.
---@param plan Plan
---@param state? Store   nil: it does not exist yet
---@param most integer   limits.allocs
---@return true? ok
---@return table? err  kind "invalid"; those of the state
function M.check_room(plan, state, most)
  local more, count, err = growth(plan), 0, nil
  if more <= 0 then return true end
  if state then count, err = state:count_allocs() end
  if not count then return nil, err end
  if count + more <= most then return true end
  local message = "job '%s': adds %d allocations, which makes %d; limits.allocs is %d; stop a job or raise the limit"
  return nil, runtime.error("invalid", message:format(plan.job, more, count + more, most))
end

--- Whether the plan changes anything.
---@param plan Plan
---@return boolean
function M.has_changes(plan)
  for _, alloc in ipairs(plan.allocs) do
    for _, change in ipairs(alloc.tasks) do
      if change.action ~= "none" then return true end
    end
  end
  return false
end

return M
