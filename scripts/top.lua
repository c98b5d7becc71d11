#!/usr/bin/env dockrun
-- Shows what each running container uses. It reads their cgroup files, so the engine has no work with it.
--
--   dockrun scripts/top.lua [-d TIME] [-n COUNT] [--json]
--
-- CPU% is of one core. Memory is without the page cache that the kernel takes back first, as `docker stats` counts it.
-- PRESSURE is the percentage of the last 10 seconds in which a process waited for CPU, memory and I/O. "-": the
-- kernel does not count it for the container.
local dockrun = require "dockrun"

local output, stats = dockrun.output, dockrun.stats

local parser = dockrun.arguments.parser("top.lua", "Live statistics of all containers.")
parser:option("-d --delay", "Time between two readings.", "2"):convert(function(text)
  if dockrun.duration.parse(text) == 0 then return nil, "the delay must be more than 0" end
  return dockrun.duration.parse(text)
end)
parser:option("-n --count", "How many readings; without it, until interrupted."):convert(dockrun.arguments.integer("--count", 1))
parser:flag("--json", "One JSON document for each reading.")
local args = parser:parse()

local engine = assert(dockrun.connect())
local reader = stats.new(engine)

-- One reading of each container, by id. A container that ends meanwhile is left out.
local function read_all()
  local readings = {}
  for _, container in ipairs(assert(engine:container_list())) do
    local reading = reader:read(container.Id)
    if reading then
      reading.name = container.Names[1]:gsub("^/", "")
      readings[container.Id] = reading
    end
  end
  return readings
end

local function show(rows)
  if args.json then
    output.json(dockrun.json.array(rows))
    return
  end
  if output.is_terminal(1) then io.write "\27[H\27[2J" end
  local names = {}
  for i, row in ipairs(rows) do names[i] = row.name end
  output.stats("NAME", names, rows)
end

local before = read_all()
for _ = 1, args.count or math.huge do
  dockrun.sleep(args.delay)
  local rows, readings = {}, read_all()
  for id, reading in pairs(readings) do
    local row = stats.summarise(reading, before[id])
    row.name, row.id = reading.name, id
    rows[#rows + 1] = row
  end
  before = readings
  table.sort(rows, function(a, b)
    local left, right = a.cpu_percent or 0, b.cpu_percent or 0
    return left > right or left == right and a.name < b.name
  end)
  show(rows)
end
