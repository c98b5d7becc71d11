#!/usr/bin/env dockrun
-- What every running container uses, read from its cgroup files: no load on the engine, however many there are.
--
--   dockrun scripts/top.lua [-d SECONDS] [-n COUNT] [--json]
--
-- CPU% is of one core. Memory is without the page cache that the kernel takes back first, as `docker stats` counts it.
local argparse = require "argparse"
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"

local parser = argparse("top.lua", "Live statistics of all containers.")
parser:option("-d --delay", "Seconds between two pictures.", "2"):convert(tonumber)
parser:option("-n --count", "How many pictures; without it, until interrupted."):convert(tonumber)
parser:flag("--json", "One JSON document a picture.")
function parser:error(message)
  io.stderr:write(self:get_usage(), "\n\nError: ", message, "\n")
  os.exit(2, true)
end
local args = parser:parse()

local engine = assert(dockrun.connect())
local found = {}  -- where a container's cgroup is, by container id: asked for once

local function locate(container)
  if found[container.Id] then return found[container.Id] end
  local inspected = engine:container_inspect(container.Id)
  local pid = inspected and inspected.State.Pid
  local group = pid and pid > 0 and dockrun.cgroup.find(pid) or nil
  found[container.Id] = group
  return group
end

-- One reading of every container: {name, id, at, stat}. One that ends meanwhile is left out.
local function read_all()
  local readings = {}
  for _, container in ipairs(assert(engine:container_list())) do
    local group = locate(container)
    local stat = group and dockrun.cgroup.read(group)
    if stat and stat.cpu.usage and stat.memory.usage then  -- else its files are just going, one by one
      readings[#readings + 1] = { name = container.Names[1]:gsub("^/", ""), id = container.Id, at = dockrun.now(), stat = stat }
    else
      found[container.Id] = nil
    end
  end
  return readings
end

local function summarise(now, before)
  local cpu, memory = now.stat.cpu, now.stat.memory
  local row = {
    name = now.name, id = now.id, memory = memory.usage - (memory.inactive_file or 0), memory_limit = memory.limit,
    oom_kills = memory.oom_kills, pids = now.stat.pids.current, throttled_seconds = cpu.throttled,
  }
  local used = before and cpu.usage - before.stat.cpu.usage
  if used and used >= 0 then row.cpu_percent = used / (now.at - before.at) * 100 end  -- below 0: restarted meanwhile
  return row
end

local function size(bytes)
  if not bytes then return "-" end
  for _, unit in ipairs { "B", "K", "M", "G" } do
    if bytes < 1024 or unit == "G" then return (unit == "B" and "%d%s" or "%.1f%s"):format(bytes, unit) end
    bytes = bytes / 1024
  end
end

local function show(rows)
  if args.json then
    output.json(dockrun.json.array(rows))
    return
  end
  if output.is_terminal(1) then io.write "\27[H\27[2J" end
  local cells = {}
  for i, row in ipairs(rows) do
    cells[i] = {
      row.name, row.cpu_percent and ("%.1f"):format(row.cpu_percent) or "-", size(row.memory), size(row.memory_limit),
      tostring(row.pids or "-"), tostring(row.oom_kills or "-"), ("%.1fs"):format(row.throttled_seconds or 0),
    }
  end
  output.columns({ "NAME", "CPU%", "MEMORY", "LIMIT", "PIDS", "OOM", "THROTTLED" }, cells)
end

local before = {}
for _, reading in ipairs(read_all()) do before[reading.id] = reading end
for _ = 1, args.count or math.huge do
  dockrun.sleep(args.delay)
  local rows, seen = {}, {}
  for _, reading in ipairs(read_all()) do
    rows[#rows + 1] = summarise(reading, before[reading.id])
    seen[reading.id] = reading
  end
  before = seen
  table.sort(rows, function(a, b) return (a.cpu_percent or 0) > (b.cpu_percent or 0) end)
  show(rows)
end
