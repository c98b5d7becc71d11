--- Takes containers into the state that it did not record: after its database was lost, or replaced by an older copy. The
--- labels of a container say which task it is. They may be forged. So each is read as a job file is and checked against the
--- agent's policy, and only an operator's command adopts.
local labels = require "dockrun.driver.labels"
local json = require "dockrun.core.json"
local normalise = require "dockrun.job.normalise"
local plans = require "dockrun.agent.plan"
local diagnostics = require "dockrun.job.diagnostics"
local observed = require "dockrun.agent.observed"
local time = require "dockrun.util.time"

local M = {}

---@class Adoptable
---@field job string
---@field observations Observation[]  the containers of one allocation
---@field read? table           the job that their definitions make
---@field refused? string       why they are not adopted

-- ---- whether an allocation can be adopted -----------------------------------------------------

-- A definition as a job file would have it. Dependencies on tasks without a container are left out (those tasks are done), and
-- so are checks in Lua (a label cannot hold a function).
local function raw_task(seen, there)
  local task, on = {}, {}
  for key, value in pairs(seen.definition) do task[key] = value end
  for name, condition in pairs(type(task.depends_on) == "table" and task.depends_on or {}) do
    if there[name] then on[name] = condition end
  end
  task.depends_on = next(on) and on or nil
  local checks = json.array {}
  for _, check in ipairs(type(task.checks) == "table" and task.checks or {}) do
    if type(check) ~= "table" or check.type ~= "lua" then checks[#checks + 1] = check end
  end
  task.checks = checks
  return task
end

local function read(observations)
  local first, there, tasks, found = observations[1], {}, {}, diagnostics.new()
  for _, seen in ipairs(observations) do there[seen.task] = true end
  for i, seen in ipairs(observations) do tasks[i] = raw_task(seen, there) end
  local job = normalise.job({ job = { {
    name = first.job, type = first.row.type, groups = { { name = first.group, tasks = tasks } },
  } } }, found)
  return job, found:error()
end

-- Whether the containers of an allocation agree about it.
local function agree(observations)
  for _, seen in ipairs(observations) do
    for _, key in ipairs { "job", "group", "index" } do
      if seen[key] ~= observations[1][key] then return false end
    end
    if seen.row.type ~= observations[1].row.type then return false end
  end
  return true
end

-- Why the state has no room for an allocation; nil if it has.
local function conflict(agent, found, observations)
  local first = observations[1]
  local known, err = agent.state:alloc(first.alloc)
  if err then return tostring(err) end
  if known and (known.job ~= first.job or known.group ~= first.group or known.index ~= first.index) then
    return "the state has its allocation at another place"
  end
  for _, other in ipairs(found.observations) do
    if other.job == first.job and other.group == first.group and other.index == first.index then
      if other.alloc ~= first.alloc and found.allocs[other.alloc].live then
        return ("allocation %s has its place"):format(other.alloc:sub(1, 8))
      end
      for _, seen in ipairs(observations) do
        if other.alloc == first.alloc and other.task == seen.task and other.container_id then
          return "its task has another container"
        end
      end
    end
  end
end

local function judge(agent, found, observations)
  if not agree(observations) then return nil, "the labels of its allocation's containers contradict each other" end
  local why = conflict(agent, found, observations)
  if why then return nil, why end
  local job, err = read(observations)
  local ok
  if job then ok, err = plans.check(job, agent:host()) end
  if not ok then return nil, "its definition is not accepted: " .. tostring(err) end
  return job
end

--- Finds the allocations that can be adopted, of a job or of all.
---@param agent Agent
---@param job? string
---@return Adoptable[]? list  an allocation each, in the order of job, group and index
---@return table? err
function M.find(agent, job)
  local found, err = observed.find(agent, job)
  if not found then return nil, err end
  local list, by_alloc = {}, {}
  for _, seen in ipairs(found.unowned) do
    local adoptable = by_alloc[seen.alloc]
    if not adoptable then
      adoptable = { job = seen.job, observations = {} }
      by_alloc[seen.alloc], list[#list + 1] = adoptable, adoptable
    end
    table.insert(adoptable.observations, seen)
  end
  for _, adoptable in ipairs(list) do adoptable.read, adoptable.refused = judge(agent, found, adoptable.observations) end
  table.sort(list, function(a, b)
    local first, second = a.observations[1], b.observations[1]
    for _, key in ipairs { "job", "group", "index" } do
      if first[key] ~= second[key] then return first[key] < second[key] end
    end
    return first.alloc < second.alloc
  end)
  return list, nil
end

-- ---- taking it over ---------------------------------------------------------------------------

-- A running task stays running. An ended one stays ended: adopting restarts nothing.
local function state_of(seen)
  if seen.state == "running" then return "running" end
  return seen.state == "failed" and "failed" or "dead"
end

local function put_task(agent, adoptable, seen, spec)
  local state, now = agent.state, time.now()
  state:put_task {
    alloc = seen.alloc, task = seen.task, state = state_of(seen), container_id = seen.container_id, image = seen.image,
    image_id = seen.image_id, ports = seen.ports, exit_code = seen.exit_code, restarts = 0, restart_count = 0,
    restart_since = now, started_at = seen.started_at, finished_at = seen.finished_at,
    definition = json.decode(labels.definition(spec, spec.meta)),
    detail = { started = seen.started_at ~= nil, succeeded = seen.state == "dead" },
  }
  for _, port in ipairs(seen.state == "running" and seen.ports or {}) do
    local ok, err = state:lease { ip = agent.bind_ip, port = port.host_port, alloc = seen.alloc, task = seen.task, label = port.label }
    if not ok then return nil, err end
  end
  agent.emitter:emit({ job = adoptable.job, group = seen.group, name = seen.task, alloc_id = seen.alloc }, "reattached", {
    container_id = seen.container_id, image_id = seen.image_id, ports = seen.ports, message = "adopted",
  })
  return true
end

local function put_job(agent, adoptable)
  local state = agent.state
  local known, err = state:job(adoptable.job)
  if err then return nil, err end
  if not known then
    state:put_job { name = adoptable.job, definition = { name = adoptable.job, type = adoptable.read.type, meta = {} }, status = "dead",
      endpoint = agent.engine:endpoint() }
  end
  return true
end

--- Takes an allocation over. All of it, or nothing.
---@param agent Agent
---@param adoptable Adoptable  not refused; the caller holds its job, see lock.lua
---@return true? ok
---@return table? err
function M.take(agent, adoptable)
  local first, runs = adoptable.observations[1], false
  return agent.state:transaction(function()
    local ok, err = put_job(agent, adoptable)
    if not ok then return nil, err end
    agent.state:put_alloc {
      id = first.alloc, job = adoptable.job, group = first.group, index = first.index, meta = { created = time.now() },
    }
    local specs = {}
    for _, spec in ipairs(adoptable.read.groups[1].tasks) do specs[spec.name] = spec end
    for _, seen in ipairs(adoptable.observations) do
      ok, err = put_task(agent, adoptable, seen, specs[seen.task])
      if not ok then return nil, err end
      runs = runs or seen.state == "running"
    end
    if runs then agent.state:set_job_status(adoptable.job, "running") end
  end)
end

return M
