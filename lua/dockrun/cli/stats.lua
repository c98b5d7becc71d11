local containers = require "dockrun.cli.containers"
local count = require "dockrun.cli.count"
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"
local standard = require "dockrun.core.standard"
local usage = require "dockrun.driver.stats"
local usage_table = require "dockrun.cli.usage_table"

local INTERVAL = 1  -- seconds between the two readings that a share of the CPU needs

local function running(engine, job)
  local records, err = containers(engine, job)
  if not records then return nil, err end
  local list = {}
  for _, record in ipairs(records) do
    if record.state == "running" then list[#list + 1] = record end
  end
  return list
end

local function read_all(reader, records)
  local readings = {}
  for _, record in ipairs(records) do readings[record.container_id] = reader:read(record.container_id) end
  return readings
end

local function show(args, records, readings, before)
  local rows = dockrun.json.array {}
  for _, record in ipairs(records) do
    local id = record.container_id
    if readings[id] then
      local row = usage.summarise(readings[id], before[id])
      for _, key in ipairs { "job", "group", "task", "alloc", "container_id" } do row[key] = record[key] end
      row.index = record.index
      rows[#rows + 1] = row
    end
  end
  if args.json then
    output.json { tasks = rows }
    return
  end
  local names = {}
  for i, row in ipairs(rows) do names[i] = ("%s.%s[%d].%s"):format(row.job, row.group, row.index, row.task) end
  usage_table.print("TASK", names, rows)
end

return {
  summary = "Show what running tasks use.",
  define = function(command)
    command:argument("job", "Only this job."):args "?"
    command:option("-n --count", "How many pictures, one a second.", "1"):convert(count("--count", 1))
  end,
  run = function(args)
    standard.end_with_reader "at once"
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    if not engine:endpoint():find "^unix:" then
      return nil, dockrun.error("usage", "stats reads cgroup files: it needs an engine on this host, with a unix:// endpoint")
    end
    local records
    records, err = running(engine, args.job)
    if not records then return nil, err end
    if args.job and #records == 0 then return nil, dockrun.error("failed", ("no task of '%s' runs on this engine"):format(args.job)) end
    local reader = usage.new(engine)
    local before = read_all(reader, records)
    for _ = 1, args.count do
      dockrun.sleep(INTERVAL)
      local readings = read_all(reader, records)
      show(args, records, readings, before)
      before = readings
    end
    return 0
  end,
}
