-- One fault on the connection between dockrun and the engine, and the checks after it.
local many = require "spec.faults.many"
local worlds = require "spec.faults.world"

local M = {}

local function fail(problems, ...) problems[#problems + 1] = string.format(...) end

-- Whatever happens, dockrun ends with one of its exit codes and a message.
local function check_end(problems, result, what)
  local said = result.stdout .. result.stderr
  if result.signal then fail(problems, "%s was ended by %s", what, result.signal) end
  if result.code == 4 then fail(problems, "%s: an internal error", what) end
  for _, text in ipairs { "traceback", "Sanitizer", "runtime error" } do
    if said:find(text) then fail(problems, "%s: '%s' in its output", what, text) end
  end
end

local function tells_why(result, by) return #by.failed > 0 or result.stderr:find "error: %S+ %S+" ~= nil end

-- Once, or as often as the restart policy says.
local function check_starts(problems, world, by)
  if world.misled then return end
  local starts, allowed = world:count "start", 1 + #by.restarting + (world.replayed and 1 or 0)
  if starts > allowed then fail(problems, "started %d times, and not %d", starts, allowed) end
  if world:most_at_once() > 1 then fail(problems, "two containers ran at once") end
  for _, event in ipairs(by.exited) do
    if event.exit_code ~= world.exit_code then fail(problems, "exit code %s, not %d", event.exit_code, world.exit_code) end
  end
end

local function check_leftovers(problems, world, events)
  if world.misled then  -- a damaged request may succeed as another request, and its result is never cleaned up
    for _ = 1, 2 do world:run { "gc", "--set", "gc.creation_grace=0" } end
  end
  for _, text in ipairs(world:leftovers(events)) do fail(problems, "%s", text) end
end

-- ---- scenarios --------------------------------------------------------------------------------

-- Each runs dockrun with the fault armed at one point, and returns the results, and true if all went as without a fault.
local scenarios = {}

local function foreground(exit_code, attempts)
  return {
    world = { exit_code = exit_code, attempts = attempts },
    run = function(world, armed, problems)
      world.proxy:arm(armed)
      local result = world:run { "run", "--json", world.job_file }
      world.proxy:arm {}
      local events, by = worlds.events(result.stdout)
      check_end(problems, result, "run")
      check_starts(problems, world, by)
      check_leftovers(problems, world, events)
      if result.code == 0 and (exit_code ~= 0 or #by.exited == 0) then fail(problems, "code 0, and the task did not end so") end
      local as_meant = #by.exited > 0 and result.code == (exit_code == 0 and 0 or 1)
      if not as_meant and not tells_why(result, by) then fail(problems, "code %s, and no word why", result.code) end
      return { result }, as_meant and (#by.restarting > attempts and "retried" or "unharmed") or "clear error"
    end,
  }
end

scenarios.run = foreground(0, 3)
scenarios.fails = foreground(7, 0)

local SLEEPER = { command = "exec sleep 1000", task = 'kill_signal = "SIGKILL"', exit_code = 137 }

scenarios.interrupt = {
  world = SLEEPER,
  run = function(world, armed, problems)
    world.proxy:arm(armed)
    local child <close> = world:start { "run", "--json", world.job_file }
    pcall(child.wait_for, child, '"event":"started"')
    child:kill "SIGINT"
    local result = child:wait()
    world.proxy:arm {}
    local events, by = worlds.events(result.stdout)
    check_end(problems, result, "run")
    check_starts(problems, world, by)
    check_leftovers(problems, world, events)
    if result.code ~= 130 and not tells_why(result, by) then fail(problems, "code %s, and no word why", result.code) end
    return { result }, result.code == 130 and (#by.restarting > 0 and "retried" or "unharmed") or "clear error"
  end,
}

-- The container of a job that should run once, or nil and the reason.
local function check_detached(problems, world, result, by)
  check_end(problems, result, "run -d")
  check_starts(problems, world, by)
  local containers = world:containers()
  if result.code ~= 0 then
    if not tells_why(result, by) then fail(problems, "run -d: code %s, and no word why", result.code) end
  elseif #containers ~= 1 or containers[1].State ~= "running" then
    fail(problems, "run -d: code 0, and %d containers", #containers)
  end
end

scenarios.detach = {
  world = SLEEPER,
  run = function(world, armed, problems)
    world.proxy:arm(armed)
    local result = world:run { "run", "-d", "--json", world.job_file }
    world.proxy:arm {}
    local events, by = worlds.events(result.stdout)
    check_detached(problems, world, result, by)
    local stop
    if #world:containers() > 0 then
      stop = world:run { "stop", "--json", world.name }
      if stop.code ~= 0 then fail(problems, "stop: code %s: %s", stop.code, stop.stderr) end
    end
    check_leftovers(problems, world, events)
    return { result, stop }, result.code == 0 and (#by.restarting > 0 and "retried" or "unharmed") or "clear error"
  end,
}

scenarios.stop = {
  world = SLEEPER,
  run = function(world, armed, problems)
    local run = world:run { "run", "-d", "--json", world.job_file }
    if run.code ~= 0 then fail(problems, "run -d: code %s: %s", run.code, run.stderr) end
    world.proxy:arm(armed)
    local stop = world:run { "stop", "--json", world.name }
    world.proxy:arm {}
    check_end(problems, stop, "stop")
    local again
    if stop.code ~= 0 then
      if not stop.stderr:find "error: %S+" then fail(problems, "stop: code %s, and no word why", stop.code) end
      again = world:run { "stop", "--json", world.name }
      if again.code ~= 0 and not again.stderr:find "no job" then fail(problems, "second stop: code %s: %s", again.code, again.stderr) end
    end
    check_leftovers(problems, world, worlds.events(run.stdout))
    return { run, stop, again }, stop.code == 0 and "unharmed" or "clear error"
  end,
}

M.scenarios = { "run", "fails", "interrupt", "detach", "stop" }

-- ---- faults -----------------------------------------------------------------------------------

--- The requests of a scenario in which nothing goes wrong.
---@param endpoint string
---@param name string
---@return ProxyRequest[]
function M.rehearse(endpoint, name)
  local scenario = scenarios[name]
  local world <close> = worlds.new(endpoint, scenario.world)
  local requests, arm, problems = nil, world.proxy.arm, {}
  function world.proxy:arm(faults)
    local list = arm(self, faults)
    requests = requests or list
    return list
  end
  local results, verdict = scenario.run(world, {}, problems)
  if #problems > 0 or verdict ~= "unharmed" then
    error(("%s without a fault: %s %s\n%s%s"):format(name, verdict, table.concat(problems, "; "), results[1].stdout, results[1].stderr), 0)
  end
  return requests
end

local directions = { "up", "down" }
M.actions = { "reset", "truncate", "delay", "split", "repeat", "drop", "replay" }

--- A fault somewhere in a scenario's requests.
---@param random Random
---@param requests ProxyRequest[]
---@return Fault
function M.pick(random, requests)
  local request, action = random:pick(requests), random:pick(M.actions)
  local direction = action == "replay" and "up" or random:pick(directions)
  -- Most faults can happen at the ends of a message.
  local last = request[direction] - 1
  local byte = random:pick { 0, last, random:int(0, last), random:int(0, last) }
  if action == "replay" then byte = last end
  return { request = request.n, direction = direction, byte = byte, action = action }
end

local function describe(fault)
  return ("{ request = %d, direction = %q, byte = %d, action = %q }"):format(fault.request, fault.direction, fault.byte, fault.action)
end

--- Injects the fault into a job of its own.
---@param endpoint string
---@param name string  the scenario
---@param fault Fault
---@return FaultOutcome
function M.try(endpoint, name, fault)
  local scenario, problems = scenarios[name], {}
  local world <close> = worlds.new(endpoint, scenario.world)
  world.misled = fault.direction == "up" and (fault.action == "repeat" or fault.action == "drop")
  local what = "-"
  world.proxy.on = function(point, request)
    if point ~= "arrived" or #world.proxy.faults == 0 or request.n ~= fault.request then return end
    local path = request.path:gsub("%?.*", ""):gsub("/%x+", function(hex) return #hex == 65 and "/ID" or nil end)
    what = request.method .. " " .. path
    world.replayed = fault.action == "replay" and what:find "/start$" ~= nil  -- then the network starts the container twice
  end
  local done, results, verdict = pcall(scenario.run, world, { fault }, problems)
  if not done then
    fail(problems, "%s", results)
    results, verdict = {}, "clear error"
  end
  if #problems > 0 then
    for _, result in pairs(results) do
      problems[#problems + 1] = ("code %s\n--- stdout\n%s--- stderr\n%s"):format(result.code, result.stdout, result.stderr)
    end
    for _, event in ipairs(world.history) do problems[#problems + 1] = ("engine: %s %s"):format(event.action, event.id:sub(1, 12)) end
  end
  return {
    class = ("%s %s"):format(fault.action, fault.direction), verdict = fault.fired and verdict or "not met", problems = problems,
    what = ("%s %s at %s"):format(name, describe(fault), what),
  }
end

---@param endpoint string
---@param opts { count: integer, seed: integer, width: integer }
---@return table<string, table<string, integer>> counts
---@return string[] failures
function M.many(endpoint, opts)
  local rehearsed = {}
  for _, name in ipairs(M.scenarios) do rehearsed[name] = M.rehearse(endpoint, name) end
  return many.run(opts, function(random)
    local name = random:pick(M.scenarios)
    return M.try(endpoint, name, M.pick(random, rehearsed[name]))
  end)
end

return M
