local dockrun = require "dockrun"
local output = require "dockrun.output"
local status = require "dockrun.agent.status"
local store = require "dockrun.store"
local time = require "dockrun.util.time"

-- The jobs to show. Without a state, only the containers that `dockrun adopt` could take over.
local function gather(job)
  local engine, err = dockrun.connect()
  if not engine then return nil, err end
  local state <close>, problem = store.open(dockrun.options.state_dir, { readonly = true })
  if problem and problem.kind ~= "missing" then output.say("warn", ("%s; only containers are shown"):format(problem)) end
  return status.jobs({ engine = engine, state = state, options = dockrun.options }, job)
end

local function since(moment) return output.duration((dockrun.clock()) - (time.seconds(moment) or dockrun.clock())) end

local function uptime(task)
  if task.state == "running" and task.started_at then return since(task.started_at) end
  return task.exit_code and "exit " .. task.exit_code or "-"
end

local state_colors = { running = "32", pending = "33", failed = "31", dead = "90", unowned = "33" }

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
    if args.job and #jobs == 0 then
      return nil, dockrun.error("failed", ("no job '%s' in this state or on this engine"):format(args.job))
    end
    output.columns({ "JOB", "TASK", "ALLOC", "STATE", "UPTIME", "RESTARTS", "LAST EVENT", "PORTS" }, rows_of(jobs))
    return 0
  end,
}
