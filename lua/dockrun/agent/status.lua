--- The status of jobs and their tasks, from the state and the engine. Changes nothing.
local json = require "dockrun.core.json"
local observed = require "dockrun.agent.observed"

local M = {}

-- The status of a job is the first of these that any of its tasks has.
local order = { "failed", "running", "pending", "dead", "unowned" }

local function status_of(tasks, known)
  local present = {}
  for _, task in ipairs(tasks) do present[task.state] = true end
  for _, state in ipairs(order) do
    if present[state] then return state end
  end
  return known and known.status or "dead"
end

-- Every job with its tasks, including jobs of the state that have no task left.
local function by_job(observations, jobs, last)
  local list, index = json.array {}, {}
  local function job_of(name)
    if not index[name] then
      index[name] = { name = name, tasks = json.array {} }
      list[#list + 1] = index[name]
    end
    return index[name]
  end
  for _, seen in ipairs(observations) do
    table.insert(job_of(seen.job).tasks, {
      group = seen.group, task = seen.task, index = seen.index, alloc = seen.alloc, state = seen.state, image = seen.image,
      container_id = seen.container_id, ports = seen.ports, exit_code = seen.exit_code, restarts = seen.restarts,
      started_at = seen.started_at, last_event = last[seen.alloc .. " " .. seen.task],
    })
  end
  local known = {}
  for _, job in ipairs(jobs) do known[job.name] = job_of(job.name) and job end
  for _, job in ipairs(list) do job.status = status_of(job.tasks, known[job.name]) end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- The last event of each task: "alloc task" -> { event, time }.
local function last_events(state, job)
  local last = {}
  local events, err = state:events { job = job }
  if not events then return nil, err end
  for _, event in ipairs(events) do
    if event.alloc and event.task then last[event.alloc .. " " .. event.task] = { event = event.event, time = event.time } end
  end
  return last
end

--- Every job, or one, with its tasks.
--- Containers that the state should have and does not are unowned: `dockrun adopt` takes them over.
---@param agent { engine: table, state?: Store, options: table<string, any> }
---@param job? string
---@return table[]? jobs  as `dockrun status --json` prints them
---@return table? err
function M.jobs(agent, job)
  local state = agent.state
  local found, err = observed.find(agent, job)
  if not found then return nil, err end
  for _, seen in ipairs(found.unowned) do
    seen.state = "unowned"
    table.insert(found.observations, seen)
  end
  if not state then return by_job(found.observations, {}, {}) end
  local jobs, last
  jobs, err = state:jobs()
  if not jobs then return nil, err end
  last, err = last_events(state, job)
  if not last then return nil, err end
  local selected = {}
  for _, known in ipairs(jobs) do
    if not job or known.name == job then selected[#selected + 1] = known end
  end
  return by_job(found.observations, selected, last)
end

return M
