local dockrun = require "dockrun"
local output = require "dockrun.cli.output"
local recovery = require "dockrun.recovery"
local store = require "dockrun.store"
local timestamp = require "dockrun.timestamp"

-- The state of a job from its tasks': the first of these that any of them is in.
local order = { "failed", "running", "pending", "dead" }

local function status_of(tasks, known)
  local seen = {}
  for _, task in ipairs(tasks) do seen[task.state] = true end
  for _, state in ipairs(order) do
    if seen[state] then return state end
  end
  return known and known.status or "dead"
end

-- Every job with its tasks, those of the state that have none left too.
local function by_job(records, jobs, last)
  local list, index = dockrun.json.array {}, {}
  local function job_of(name)
    if not index[name] then
      index[name] = { name = name, tasks = dockrun.json.array {} }
      list[#list + 1] = index[name]
    end
    return index[name]
  end
  for _, record in ipairs(records) do
    table.insert(job_of(record.job).tasks, {
      group = record.group, task = record.task, index = record.index, alloc = record.alloc, state = record.state, image = record.image,
      container_id = record.container_id, ports = record.ports, exit_code = record.exit_code, restarts = record.restarts,
      started_at = record.started_at, last_event = last[record.alloc .. " " .. record.task],
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

-- All that is to be shown. The state may be missing: containers tell most.
local function gather(job)
  local engine, err = dockrun.connect()
  if not engine then return nil, err end
  local state <close>, problem = store.open(dockrun.options.state_dir, { readonly = true })
  if problem and problem.kind ~= "missing" then output.say("warn", ("%s; only containers are shown"):format(problem)) end
  local found
  found, err = recovery.find(engine, state, job)
  if not found then return nil, err end
  if not state then return by_job(found.records, {}, {}) end
  local jobs, last
  jobs, err = state:jobs()
  if not jobs then return nil, err end
  last, err = last_events(state, job)
  if not last then return nil, err end
  local wanted = {}
  for _, one in ipairs(jobs) do
    if not job or one.name == job then wanted[#wanted + 1] = one end
  end
  return by_job(found.records, wanted, last)
end

local function since(moment) return output.duration((dockrun.clock()) - (timestamp.seconds(moment) or dockrun.clock())) end

local function uptime(task)
  if task.state == "running" and task.started_at then return since(task.started_at) end
  return task.exit_code and "exit " .. task.exit_code or "-"
end

local state_colors = { running = "32", pending = "33", failed = "31", dead = "90" }

local function rows_of(jobs)
  local rows = {}
  for _, job in ipairs(jobs) do
    for _, task in ipairs(job.tasks) do
      local event = task.last_event
      rows[#rows + 1] = {
        job.name, ("%s.%s[%d]"):format(task.group, task.task, task.index), task.alloc:sub(1, 8),
        output.paint(task.state, state_colors[task.state]), uptime(task), tostring(task.restarts),
        event and ("%s %s ago"):format(event.event, since(event.time)) or "-", output.ports(task.ports),
      }
    end
    if #job.tasks == 0 then
      rows[#rows + 1] = { job.name, "-", "-", output.paint(job.status, state_colors[job.status]), "-", "-", "-", "" }
    end
  end
  return rows
end

return {
  summary = "List jobs and their tasks.",
  define = function(command) command:argument("job", "Only this job."):args "?" end,
  run = function(args)
    local jobs, err = gather(args.job)
    if not jobs then return nil, err end
    if args.json then
      output.json { jobs = jobs }
      return 0
    end
    if args.job and #jobs == 0 then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(args.job)) end
    output.columns({ "JOB", "TASK", "ALLOC", "STATE", "UPTIME", "RESTARTS", "LAST EVENT", "PORTS" }, rows_of(jobs))
    return 0
  end,
}
