-- SIGKILL ends dockrun at one point of its work, and another process takes over; the checks after that.
--
-- A point is a request to the engine (before it is passed on, after that, or before its answer is passed on), or a system call
-- that changes the state or a directory: strace(1) sends SIGKILL in its place.
local many = require "spec.faults.many"
local process = require "spec.process"
local worlds = require "spec.faults.world"

local M = {}

local function fail(problems, ...) problems[#problems + 1] = string.format(...) end

---@class CrashPoint
---@field point "arrived"|"forwarded"|"answered"|"pwrite64"|"fdatasync"|"mkdir"|"rmdir"|"unlink"
---@field n integer  which, from 1

local at_engine = { arrived = true, forwarded = true, answered = true }

-- ---- the first process ------------------------------------------------------------------------

-- Runs dockrun, which is killed at the point. Returns nil, result if it ended without reaching the point.
---@param point CrashPoint
local function run_and_kill(world, words, point)
  local child
  if at_engine[point.point] then
    world.proxy.on = function(at, request)
      if at ~= point.point or request.n ~= point.n or not child then return end
      child:kill "SIGKILL"
      return false
    end
    world.proxy:arm {}
    child = world:start(words)
  else
    child = world:start(words, { program = "strace", prefix = {
      "-f", "-qq", "-o", "/dev/null", "-e", "trace=" .. point.point,
      "-e", ("inject=%s:signal=SIGKILL:when=%d"):format(point.point, point.n), "setpriv", "--pdeathsig", "KILL", process.program,
    }, env = { ASAN_OPTIONS = "detect_leaks=0" } })  -- the leak checker needs to trace the process itself
  end
  local _ <close> = child
  local result = child:wait()
  world.proxy.on = nil
  return result.signal == "SIGKILL", result
end

-- ---- what follows -----------------------------------------------------------------------------

local function check_end(problems, result, what)
  if result.signal then fail(problems, "%s was ended by %s", what, result.signal) end
  for _, text in ipairs { "traceback", "Sanitizer", "runtime error", "a fiber failed" } do
    if (result.stdout .. result.stderr):find(text) then fail(problems, "%s: '%s' in its output", what, text) end
  end
end

local function check_leftovers(problems, world, events)
  for _, text in ipairs(world:leftovers(events)) do fail(problems, "%s", text) end
end

local function check_starts(problems, world, most, by)
  local starts = world:count "start"
  if starts > most then fail(problems, "started %d times, and not %d", starts, most) end
  if world:most_at_once() > 1 then fail(problems, "two containers ran at once") end
  for _, event in ipairs(by.exited) do
    if event.exit_code ~= world.exit_code then fail(problems, "exit code %s, not %d", event.exit_code, world.exit_code) end
  end
end

local SLEEPER = { command = "exec sleep 1000", task = 'kill_signal = "SIGKILL"', exit_code = 137 }

-- Each scenario: the world, the arguments of the process that is killed, and the next process's work.
local scenarios = {}

-- Runs the same job again, to its end. If the first run had ended already, the job runs once more.
local function run_again(exit_code, attempts)
  return {
    world = { exit_code = exit_code, attempts = attempts },
    words = function(world) return { "run", "--json", world.job_file } end,
    follow = function(world, problems)
      local ended = world:has_ended()
      local result = world:run { "run", "--json", world.job_file }
      local events, by = worlds.events(result.stdout)
      check_end(problems, result, "the second run")
      if result.code ~= (exit_code == 0 and 0 or 1) then fail(problems, "the second run: code %s", result.code) end
      check_starts(problems, world, (1 + attempts) * (ended and 2 or 1), by)
      check_leftovers(problems, world, events)
      return { result }
    end,
  }
end

scenarios.run = run_again(0, 0)
scenarios.fails = run_again(7, 1)

scenarios.run_then_stop = {
  world = { exit_code = 0, attempts = 0 },
  words = function(world) return { "run", "--json", world.job_file } end,
  follow = function(world, problems)
    local result = world:run { "stop", "--json", world.name }
    local events, by = worlds.events(result.stdout)
    check_end(problems, result, "stop")
    if result.code ~= 0 and not result.stderr:find "no job" then fail(problems, "stop: code %s", result.code) end
    check_starts(problems, world, 1, by)
    check_leftovers(problems, world, events)
    return { result }
  end,
}

scenarios.detach = {
  world = SLEEPER,
  words = function(world) return { "run", "-d", "--json", world.job_file } end,
  follow = function(world, problems)
    local result = world:run { "run", "-d", "--json", world.job_file }
    local events, by = worlds.events(result.stdout)
    check_end(problems, result, "the second run -d")
    if result.code ~= 0 then fail(problems, "the second run -d: code %s", result.code) end
    check_starts(problems, world, 1, by)
    local containers = world:containers()
    if #containers ~= 1 or containers[1].State ~= "running" then fail(problems, "%d containers", #containers) end
    local stop = world:run { "stop", "--json", world.name }
    if stop.code ~= 0 then fail(problems, "stop: code %s", stop.code) end
    check_leftovers(problems, world, events)
    return { result, stop }
  end,
}

scenarios.stop = {
  world = SLEEPER,
  before = function(world, problems)
    local result = world:run { "run", "-d", "--json", world.job_file }
    if result.code ~= 0 then fail(problems, "run -d: code %s: %s", result.code, result.stderr) end
  end,
  words = function(world) return { "stop", "--json", world.name } end,
  follow = function(world, problems)
    local result = world:run { "stop", "--json", world.name }
    check_end(problems, result, "the second stop")
    if result.code ~= 0 and not result.stderr:find "no job" then fail(problems, "the second stop: code %s", result.code) end
    check_leftovers(problems, world)
    return { result }
  end,
}

M.scenarios = { "run", "run", "fails", "run_then_stop", "detach", "stop" }

-- ---- points -----------------------------------------------------------------------------------

M.points = { "arrived", "forwarded", "answered", "pwrite64", "fdatasync", "mkdir", "rmdir", "unlink" }

-- About how many of each a run has; a number beyond the last is never reached, and another is tried.
local most = { arrived = 18, forwarded = 18, answered = 18, pwrite64 = 140, fdatasync = 28, mkdir = 15, rmdir = 7, unlink = 3 }

---@param random Random
---@return string scenario
---@return CrashPoint
function M.pick(random)
  -- Half of them at the engine, a third in the state, the rest in directories.
  local point = random:pick { "arrived", "forwarded", "answered", "arrived", "forwarded", "answered", "pwrite64", "fdatasync",
    random:pick(M.points), "pwrite64", "fdatasync", random:pick { "mkdir", "rmdir", "unlink" } }
  return random:pick(M.scenarios), { point = point, n = random:int(1, most[point]) }
end

---@param endpoint string
---@param name string  the scenario
---@param point CrashPoint
---@return FaultOutcome
function M.try(endpoint, name, point)
  local scenario, problems, results, killed = scenarios[name], {}, {}, false
  local world <close> = worlds.new(endpoint, scenario.world)
  local done, why = pcall(function()
    if scenario.before then scenario.before(world, problems) end
    killed, results[1] = run_and_kill(world, scenario.words(world), point)
    if not killed then return end
    for _, result in ipairs(scenario.follow(world, problems)) do results[#results + 1] = result end
  end)
  if not done then fail(problems, "%s", why) end
  if #problems > 0 then
    for _, result in ipairs(results) do
      problems[#problems + 1] = ("code %s\n--- stdout\n%s--- stderr\n%s"):format(result.code or result.signal, result.stdout, result.stderr)
    end
    for _, event in ipairs(world.history) do problems[#problems + 1] = ("engine: %s %s"):format(event.action, event.id:sub(1, 12)) end
  end
  return {
    class = at_engine[point.point] and "request " .. point.point or "syscall " .. point.point,
    verdict = killed and "unharmed" or #problems > 0 and "clear error" or "not met", problems = problems,
    what = ("%s, killed at %s %d"):format(name, point.point, point.n),
  }
end

---@param endpoint string
---@param opts { count: integer, seed: integer, width: integer }
---@return table<string, table<string, integer>> counts
---@return string[] failures
function M.many(endpoint, opts)
  return many.run(opts, function(random) return M.try(endpoint, M.pick(random)) end)
end

return M
