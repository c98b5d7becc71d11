local dockrun = require "dockrun"
local inventory = require "dockrun.driver.inventory"
local output = require "dockrun.cli.output"

-- The state of a job from its tasks': the first of these that any of them is in.
local order = { "failed", "running", "pending", "dead" }

local function by_job(records)
  local jobs, index = dockrun.json.array {}, {}
  for _, record in ipairs(records) do
    local job = index[record.job]
    if not job then
      job = { name = record.job, tasks = dockrun.json.array {} }
      index[record.job] = job
      jobs[#jobs + 1] = job
    end
    table.insert(job.tasks, {
      group = record.group, task = record.task, alloc = record.alloc, state = record.state, image = record.image,
      container_id = record.container_id, ports = record.ports, exit_code = record.exit_code, restarts = record.restarts,
      started_at = record.started_at,
    })
  end
  for _, job in ipairs(jobs) do
    local seen = {}
    for _, task in ipairs(job.tasks) do seen[task.state] = true end
    for _, state in ipairs(order) do
      if not job.status and seen[state] then job.status = state end
    end
  end
  return jobs
end

local function seconds_since(timestamp)
  local year, month, day, hour, minute, second = timestamp:match "^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)"
  local at = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second, isdst = false }
  return os.time(os.date "!*t") - at
end

local function age_of(record)
  if record.state == "running" then return output.duration(seconds_since(record.started_at)) end
  return record.exit_code and "exit " .. record.exit_code or "-"
end

local state_colors = { running = "32", pending = "33", failed = "31", dead = "90" }

return {
  summary = "List jobs and their tasks.",
  define = function(command) command:argument("job", "Only this job."):args "?" end,
  run = function(args)
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local records
    records, err = inventory.list(engine, args.job)
    if not records then return nil, err end
    if args.json then
      output.json { jobs = by_job(records) }
      return 0
    end
    if args.job and #records == 0 then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(args.job)) end
    local rows = {}
    for i, record in ipairs(records) do
      rows[i] = {
        record.job, ("%s.%s[%d]"):format(record.group, record.task, record.index), record.alloc:sub(1, 8),
        output.paint(record.state, state_colors[record.state]),
        age_of(record),
        output.ports(record.ports),
      }
    end
    output.columns({ "JOB", "TASK", "ALLOC", output.paint("STATE", "0"), "UPTIME", "PORTS" }, rows)
    return 0
  end,
}
