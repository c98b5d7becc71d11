local arguments = require "dockrun.arguments"
local dockrun = require "dockrun"
local output = require "dockrun.output"
local standard = require "dockrun.core.standard"
local stats = require "dockrun.driver.stats"
local target = require "dockrun.agent.target"

local INTERVAL = 1  -- seconds between two readings; the CPU's share needs two

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
      local row = stats.summarise(readings[id], before[id])
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
  output.stats("TASK", names, rows)
end

return {
  summary = "Show the resources that running tasks use.",
  define = function(command)
    command:argument("job", "Only this job."):args "?"
    command:option("-n --count", "How many readings, one a second.", "1"):convert(arguments.integer("--count", 1))
  end,
  run = function(args)
    standard.end_with_reader "at once"
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    if not engine:endpoint():find "^unix:" then
      return nil, dockrun.error("usage", "stats reads cgroup files, which needs an engine on this host: use a unix:// endpoint")
    end
    local records
    records, err = target.running(engine, dockrun.options, args.job)
    if not records then return nil, err end
    local reader = stats.new(engine)
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
