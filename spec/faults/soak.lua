-- One dockrun keeps many tasks restarting while the connection to the engine has faults; this script watches its memory and its
-- descriptors:
--
--   build/release/dockrun spec/faults/soak.lua [--minutes N] [--tasks N] [--seed N] [--calm]
--
-- A line a minute, then a verdict; exit code 0 if memory and descriptors stay constant, every task lives to the end and
-- nothing is left. build/soak.log holds dockrun's stderr.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local proxy = require "spec.faults.proxy"
local randoms = require "spec.fuzz.random"
local uv = require "luv"

local parser = require "argparse"("spec/faults/soak.lua", "Tasks that restart, faults, memory and descriptors.")
parser:option("--minutes", "How long it runs."):convert(tonumber):default "60"
parser:option("--tasks", "How many tasks."):convert(math.tointeger):default "50"
parser:option("--seed", "Of the faults."):convert(math.tointeger):default "1"
parser:flag("--calm", "No faults.")
local options = parser:parse(arg)

local SAMPLE = 5     -- seconds between two samples of the process
local WARM_UP = 0.25 -- share of the whole time in which memory may grow
local LOG = "build/soak.log"

-- Allowed growth after the warm-up: the median of the last third compared with that of the first.
local GROWTH = { rss = { share = 0.05, least = 1024 }, fds = { share = 0, least = 3 } } -- KiB; descriptors

-- Each task runs for more than a minute, then fails and is restarted; one of five has a port.
local function job_text(name, tasks)
  local function group(label, count, network)
    return ([[
  group %q {
    count = %d,
    restart = { attempts = 1000000, interval = "24h", delay = "8s", mode = "delay" },
    task %q {
      driver = "docker",
      config = { image = "busybox:1", command = "sh",
        args = { "-c", "echo begins; sleep $((60 + NOMAD_ALLOC_INDEX %% 30)); echo ends; exit 3" } },
      kill_signal = "SIGKILL",
      resources = { cpu = 10, memory = 16, network = { %s } },
    },
  },]]):format(label, count, label, network)
  end
  local with_ports = tasks // 5
  return ("return job %q {\n%s\n%s\n}"):format(
    name, group("plain", tasks - with_ports, ""), group("ports", math.max(with_ports, 1), "dynamic_ports = { 80 }"))
end

-- ---- faults -----------------------------------------------------------------------------------

local actions = { "reset", "reset", "truncate", "delay", "split", "repeat", "drop", "replay" }

local function do_harm(p, random, counts)
  local next_drop, next_freeze, next_away = 60, 240, 420
  local start = dockrun.now()
  local function count(what) counts[what] = (counts[what] or 0) + 1 end
  while true do
    dockrun.sleep(random:int(1000, 5000) / 1000)
    for i = #p.faults, 1, -1 do
      if p.faults[i].fired then count(table.remove(p.faults, i).action) end
    end
    local elapsed = dockrun.now() - start
    if elapsed > next_away then
      next_away = next_away + 420
      p:away()
      dockrun.sleep(3)
      p:back()
      count "away"
    elseif elapsed > next_freeze then
      next_freeze = next_freeze + 240
      p:freeze()
      dockrun.sleep(5)
      p:thaw()
      count "freeze"
    elseif elapsed > next_drop then
      next_drop = next_drop + 60
      p:drop()
      count "all dropped"
    elseif #p.faults < 3 then
      local action = random:pick(actions)
      local direction = action == "replay" and "up" or random:pick { "up", "down" }
      local match = action == "replay" and "^DELETE" or "."
      table.insert(p.faults, { match = match, direction = direction, byte = random:int(0, 300), action = action })
    end
  end
end

-- ---- numbers ----------------------------------------------------------------------------------

local function read(path)
  local file <close> = io.open(path)
  return file and file:read "a"
end

local function sample_of(pid)
  local status = read(("/proc/%d/status"):format(pid))
  local rss = status and math.tointeger(tonumber(status:match "VmRSS:%s*(%d+)"))
  local entries = uv.fs_scandir(("/proc/%d/fd"):format(pid))
  if not rss or not entries then return nil end
  local fds = 0
  while uv.fs_scandir_next(entries) do fds = fds + 1 end
  return { rss = rss, fds = fds }
end

-- Seconds of CPU that a process has used: fields 14 and 15 of proc(5) stat, in hundredths.
local function cpu_of(pid)
  local rest = (read(("/proc/%d/stat"):format(pid)) or ""):match "%) (.*)$"
  if not rest then return 0 end
  local fields = {}
  for field in rest:gmatch "%S+" do fields[#fields + 1] = field end
  return (tonumber(fields[12]) + tonumber(fields[13])) / 100
end

local function median(samples, key, from, to)
  local values = {}
  for i = from, to do values[#values + 1] = samples[i][key] end
  table.sort(values)
  return values[(#values + 1) // 2] or 0
end

local function is_flat(samples, key)
  local from = math.floor(#samples * WARM_UP) + 1
  local third = (#samples - from + 1) // 3
  local first, last = median(samples, key, from, from + third), median(samples, key, #samples - third, #samples)
  local allowed = math.max(first * GROWTH[key].share, GROWTH[key].least)
  return last - first <= allowed, first, last
end

-- ---- the run ----------------------------------------------------------------------------------

-- The tasks as the engine saw them: starts, ends, and the time when each alloc was last alive.
local function follow(engine, name, seen)
  local events = assert(engine:events {
    filters = { type = { "container" }, event = { "start", "die" }, label = { "dockrun.job=" .. name } },
  })
  for event in events do
    local alloc = event.Actor.Attributes["dockrun.alloc"]
    seen[event.Action] = seen[event.Action] + 1
    local now = (seen.running[alloc] or 0) + (event.Action == "start" and 1 or -1)
    seen.running[alloc], seen.last[alloc] = now, dockrun.now()
    if now > 1 then seen.doubled = seen.doubled + 1 end
  end
end

local function spawn(words)
  local err = assert(uv.fs_open(LOG, "w", 420))
  local null = assert(uv.fs_open("/dev/null", "r+", 0))
  local child, ended = {}, dockrun.queue()
  child.handle, child.pid = uv.spawn("setpriv", {
    args = { "--pdeathsig", "KILL", "--", process.program, table.unpack(words) }, stdio = { null, null, err },
  }, function(code, signal)
    child.code, child.signal = code, signal
    child.handle:close()
    ended:push(true)
  end)
  uv.fs_close(err)
  uv.fs_close(null)
  child.ended = ended
  return child
end

local function lines_with(pattern)
  local count, example = 0, nil
  for line in (read(LOG) or ""):gmatch "[^\n]+" do
    if line:find(pattern) then count, example = count + 1, example or line end
  end
  return count, example
end

local function say(...)
  print(string.format(...))
  io.stdout:flush()
end

local function run(e, engine)
  local name = jobs.unique "soak"
  local state_dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-soak-XXXXXX"))
  local path, file = jobs.write(job_text(name, options.tasks))
  local _ <close> = file
  local p <close> = proxy.start(e.endpoint)
  local seen = { start = 0, die = 0, doubled = 0, running = {}, last = {} }
  local follower <close> = dockrun.spawn(follow, engine, name, seen)
  assert(follower)
  local child = spawn {
    "run", "--endpoint", p.endpoint, "--state-dir", state_dir, "--set", "docker.timeout=20", path,
  }
  local counts, samples, start = {}, {}, dockrun.now()
  local harm <close> = dockrun.spawn(function()
    dockrun.sleep(30)
    if not options.calm then do_harm(p, randoms.new(options.seed), counts) end
  end)
  assert(harm)
  say("%6s %8s %8s %8s %8s %10s %6s %8s", "minute", "running", "starts", "ends", "faults", "RSS KiB", "fds", "CPU s")
  local minute = 0
  while dockrun.now() - start < options.minutes * 60 and not child.code do
    child.ended:pop(SAMPLE)
    samples[#samples + 1] = sample_of(child.pid)
    p.requests = {}
    if dockrun.now() - start >= (minute + 1) * 60 then
      minute = minute + 1
      local from, running, faults = math.max(#samples - 60 // SAMPLE, 1), 0, 0
      for _, count in pairs(seen.running) do running = running + count end
      for _, count in pairs(counts) do faults = faults + count end
      say("%6d %8d %8d %8d %8d %10d %6d %8.1f", minute, running, seen.start, seen.die, faults, median(samples, "rss", from, #samples),
        median(samples, "fds", from, #samples), cpu_of(child.pid))
    end
  end
  local problems = {}
  local function problem(...) problems[#problems + 1] = string.format(...) end
  harm:cancel()
  p:thaw()
  p.faults = {}
  if child.code then problem("dockrun ended by itself: code %d, signal %d", child.code, child.signal) end

  for _, key in ipairs { "rss", "fds" } do
    local flat, first, last = is_flat(samples, key)
    say("%s: median %d after the warm-up, %d in the end: %s", key, first, last, flat and "flat" or "GROWS")
    if not flat then problem("%s grows from %d to %d", key, first, last) end
  end
  local allocs, stale = 0, 0
  for _, at in pairs(seen.last) do
    allocs = allocs + 1
    if dockrun.now() - at > 240 then stale = stale + 1 end
  end
  if allocs ~= options.tasks then problem("%d tasks ever ran, not %d", allocs, options.tasks) end
  if stale > 0 then problem("%d tasks were not heard of for 4 minutes", stale) end
  if seen.doubled > 0 then problem("%d times an allocation had two containers running", seen.doubled) end
  for _, pattern in ipairs { "traceback", "a fiber failed", ": not_restarting", "error: .*: failed" } do
    local count, example = lines_with(pattern)
    if count > 0 then problem("%d lines such as: %s", count, example) end
  end

  if not child.code then
    child.handle:kill "sigint"
    child.ended:pop(120)
    if child.code ~= 130 then problem("SIGINT: code %s, not 130", child.code) end
  end
  for _, container in ipairs(jobs.containers(engine, name)) do
    problem("container %s is left, %s", container.Names[1], container.State)
    engine:container_remove(container.Id, { force = true, v = true })
  end
  local entries = uv.fs_scandir(state_dir .. "/alloc")
  if entries and uv.fs_scandir_next(entries) then problem("directories are left in %s/alloc", state_dir) end
  pl_dir.rmtree(state_dir)
  local names = {}
  for what, count in pairs(counts) do names[#names + 1] = ("%s %d"):format(what, count) end
  table.sort(names)
  say("faults: %s", #names > 0 and table.concat(names, ", ") or "none")
  for _, text in ipairs(problems) do say("PROBLEM: %s", text) end
  say("%s: %d tasks, %.0f minutes, %d starts, %d ends", #problems == 0 and "PASSED" or "FAILED", options.tasks,
    (dockrun.now() - start) / 60, seen.start, seen.die)
  return #problems == 0
end

local e <close> = engines.start()
local engine = assert(dockrun.connect { endpoint = e.endpoint })
engines.image(e, "busybox:1")
local ok, result = pcall(run, e, engine)
e:stop()
if not ok then error(result, 0) end
os.exit(result and 0 or 1, true)
