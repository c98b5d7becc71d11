-- The story of a simulated world: people run, change, stop and kill jobs; the engine, the registry and other programs
-- cause accidents. Then the world comes to rest, everything is stopped, and nothing may be left.
local jobs = require "spec.sim.jobs"
local sqlite = require "dockrun.core.sqlite"

local M = {}

local CHAOS = 20     -- seconds, at most
local REST = 400     -- seconds until the world must have come to rest
local ENOUGH = 6000  -- seconds: the limit of a whole story

-- ---- people -------------------------------------------------------------------------------------

local function sleep(world, seconds) world.sched:wait(seconds) end

-- The point in a process's life at which it is killed: early points are as likely as late points.
local function death(world)
  if not world.kills or not world.dice:chance(0.4) then return nil end
  return math.floor(world.dice:between(1, 4000))
end

local function database(world) return assert(sqlite.open(world.options.state_dir .. "/state.db")) end

local function give_back_leases(world)
  local db <close> = database(world)
  assert(db:run "DELETE FROM leases WHERE alloc = 'another'")
end

local function is_unused(world, lease)
  local pid = tonumber(lease.owner:match "^%d+")
  for _, process in ipairs(world:alive()) do
    if process.pid == pid then return false end
  end
  for _, container in ipairs(world.engine.order) do
    if container.State.Running and container.Config.Labels["dockrun.alloc"] == lease.alloc then return false end
  end
  return lease.alloc ~= "another"
end

-- Another task takes the ports that a killed process had leased for tasks without a running container. The leases then
-- belong to process 1, which always lives.
local function lose_leases(world)
  if not world.loses_leases or world.sched.time >= world.chaos then return end
  local db <close> = database(world)
  for _, lease in ipairs(assert(db:rows "SELECT port, alloc, owner FROM leases")) do
    if is_unused(world, lease) then
      world:note("another task takes port %d", lease.port)
      assert(db:run("UPDATE leases SET alloc = 'another', task = 'task', owner = '1 1 b007' WHERE port = ?", lease.port))
    end
  end
  world.sched:spawn(nil, function()
    sleep(world, world.dice:between(0.5, 20))
    give_back_leases(world)
  end)
end

local function run(world, name, detach)
  lose_leases(world)
  return world:dockrun("run", { job = world:text_of(name), var = {}, json = true, detach = detach }, { kill_at = death(world) })
end

local function stop(world, name)
  return world:dockrun("stop", { job = name, json = true, purge = world.dice:chance(0.2) }, { kill_at = death(world) })
end

local function change(world, name)
  local job = world.jobs[name]
  local text, what = jobs.change(world.random, job.texts[#job.texts])
  world:note("job %s changes: %s", name, what)
  table.insert(job.texts, text)
end

-- A person with a job, until the chaos is over.
local function operator(world, name)
  local dice, process = world.dice, nil
  sleep(world, dice.random() * 2)
  while world.sched.time < world.chaos do
    if not process or process.dead then
      if process and dice:chance(0.4) then change(world, name) end
      process = run(world, name, dice:chance(0.3))
    end
    sleep(world, dice:between(0.05, 20))
    if world.sched.time >= world.chaos then return end
    local deed = dice:pick { "wait", "interrupt", "interrupt twice", "stop", "kill", "run again" }
    if deed == "interrupt" then
      process:interrupt(dice:pick { "SIGINT", "SIGTERM" })
    elseif deed == "interrupt twice" then
      process:interrupt()
      sleep(world, dice:between(0.001, 3))
      if world.sched.time < world.chaos then process:interrupt() end
    elseif deed == "stop" then
      stop(world, name)
    elseif deed == "kill" and world.kills then
      process:kill()
    elseif deed == "run again" then
      if dice:chance(0.5) then change(world, name) end
      local second = run(world, name, dice:chance(0.5))
      if process.dead then process = second end
    end
  end
end

-- The agent; it is started again whenever it has ended.
local function keep_agent(world)
  while world.keeps_agent do
    if not world.agent or world.agent.dead then
      lose_leases(world)
      world.agent = world:dockrun("agent", { json = true }, { kill_at = death(world) })
    end
    sleep(world, world.dice:between(0.5, 10))
    if world.sched.time < world.chaos and world.dice:chance(0.2) then world.agent:interrupt "SIGTERM" end
  end
end

-- ---- accidents ----------------------------------------------------------------------------------

local accidents = {}

function accidents.engine(world)
  local with_containers = world.dice:chance(0.5)
  world:note("the engine dies, %s", with_containers and "its containers run on" or "and its containers")
  world.engine:crash()
  sleep(world, world.dice:between(0.1, 20))
  if not world.engine.down then return end
  world.engine:recover(with_containers)
  world:note("the engine is back")
end

function accidents.reset(world)
  world:note("connections break")
  local most = world.dice.random()
  world.engine:reset_connections(function() return world.random() < most end)
end

function accidents.registry(world)
  world.engine.registry_down = true
  sleep(world, world.dice:between(0.5, 10))
  world.engine.registry_down = false
end

-- A port that a task may ask for, or has leased without using it now.
local function some_port(world)
  local dice, from, to = world.dice, world.options["ports.from"], world.options["ports.to"]
  local claimed = {}
  for port in pairs(world.port_claims) do claimed[#claimed + 1] = port end
  table.sort(claimed)
  if #claimed > 0 and dice:chance(0.6) then return dice:pick(claimed) end
  return dice:chance(0.2) and 30011 or from + world.random(to - from + 1) - 1
end

-- Another program takes a port.
function accidents.port(world)
  local port = some_port(world)
  if world.engine:holder(port) then return end
  world:note("another program takes port %d", port)
  world.engine.foreign[port] = true
  sleep(world, world.dice:between(0.5, 20))
  world.engine.foreign[port] = nil
end

local function some_container(world)
  local count = #world.engine.order
  local container = count > 0 and world.engine.order[world.random(count)]
  if not container or world.before.containers[container.Id] or container.removing then return nil end
  return container
end

function accidents.removal(world)
  local container = some_container(world)
  if not container or world.engine.down then return end
  world:note("somebody removes %s", container.Name)
  world.engine:forget(container)
end

function accidents.killing(world)
  local container = some_container(world)
  if not container or world.engine.down or not container.State.Running then return end
  world:note("somebody kills %s", container.Name)
  world.engine:signal(container, world.dice:pick { "SIGKILL", "SIGTERM" })
end

function accidents.garbage(world) world:dockrun("gc", { json = true }, { kill_at = death(world) }) end

local function fate(world, kinds, pause)
  while world.sched.time < world.chaos do
    sleep(world, world.dice:between(0.2, pause))
    if world.sched.time < world.chaos then accidents[world.dice:pick(kinds)](world) end
  end
end

-- ---- the end ------------------------------------------------------------------------------------

-- From here on there are no faults.
local function calm(world)
  world.faults.quiet = true
  for _, process in ipairs(world:alive()) do process.kill_at = nil end
  world.kills = false
  if world.engine.down then world.engine:recover(true) end
  world.engine.registry_down, world.engine.foreign = false, {}
  give_back_leases(world)
  world:note("calm")
end

local function await_rest(world)
  local deadline = world.sched.time + REST
  while world.invariants:unrest() and world.sched.time < deadline do sleep(world, 1) end
  local why = world.invariants:unrest()
  if why then world:violate("not at rest: %s", why) end
end

local function await(world, process, seconds)
  local deadline = world.sched.time + seconds
  while not process.dead and world.sched.time < deadline do sleep(world, 0.25) end
  if not process.dead then
    world:violate("%s has not ended after %d s", process, seconds)
    process:kill()
  end
end

local function interrupt_all(world)
  local list = world:alive()
  for _, process in ipairs(list) do
    if process ~= world.agent then process:interrupt() end
  end
  for _, process in ipairs(list) do
    if process ~= world.agent then await(world, process, REST) end
  end
end

local function stop_everything(world)
  interrupt_all(world)
  for _, name in ipairs(world.names) do
    local process = world:dockrun("stop", { job = name, json = true, purge = true })
    await(world, process, REST)
    if process.code ~= 0 and not (process.err and process.err.kind == "failed") then world:violate("%s: %s", process, process.err) end
  end
  if world.keeps_agent then
    world.keeps_agent = false
    world.agent:interrupt()
    await(world, world.agent, REST)
  end
  sleep(world, world.faults.SLOWEST)  -- the engine finishes the requests that it has
  local collector = world:dockrun("gc", { json = true }, { options = {
    ["gc.creation_grace"] = 0, ["gc.job_threshold"] = 0, ["docker.cleanup.image_delay"] = 0,
  } })
  await(world, collector, REST)
  if collector.code ~= 0 then world:violate("gc: %s", collector.err) end
end

local function inventory(engine)
  local found = { containers = {}, images = {} }
  for _, container in ipairs(engine.order) do found.containers[container.Id] = container.Name end
  for ref in pairs(engine.images) do found.images[ref] = true end
  return found
end

-- A container with the labels of one of dockrun's, or with some of them changed, as `docker commit` and `docker run` make
-- it. It is not dockrun's.
function accidents.copy(world)
  local container, dice = some_container(world), world.dice
  if not container then return end
  local labels = {}
  for name, value in pairs(container.Config.Labels) do
    labels[name] = dice:chance(0.8) and value or dice:chance(0.5) and dice:pick { "", "5", "[]", "{}", "../x", "a-1", value .. "0" } or nil
  end
  labels["dockrun.runtime"] = container.Config.Labels["dockrun.runtime"]
  local copy = world.engine:create(nil, { Image = jobs.here, Cmd = { "sh", "-c", "", "sim" }, Labels = labels })
  world.before.containers[copy.Id] = copy.Name
  if dice:chance(0.7) then world.engine:begin(copy) end
end

-- ---- the whole ----------------------------------------------------------------------------------

-- Containers that are not dockrun's.
local function others(world)
  local container = world.engine:create("task1-other", { Image = jobs.here, Cmd = { "sh", "-c", "", "sim" }, Labels = {} })
  world.engine:begin(container)
end

--- Runs the story.
---@param world World
---@param opts { kills?: boolean }
function M.tell(world, opts)
  local dice = jobs.dice(world.random)
  world.dice, world.kills, world.names = dice, opts.kills and dice:chance(0.7), {}
  world.chaos = dice:between(1, CHAOS)
  world.loses_leases = not opts.gentle and dice:chance(0.7)
  world.options["ports.from"] = 20000
  world.options["ports.to"] = 20000 + dice.random(12)
  if dice:chance(0.1) then world.options["docker.cleanup.container"] = false end
  if dice:chance(0.1) then world.options["docker.cleanup.image"] = false end
  others(world)
  world.before = inventory(world.engine)
  for i = 1, dice:chance(0.2) and 2 or 1 do
    local name = "job" .. i
    world.names[i] = name
    local raw = jobs.make(world.random, world, name)
    world.jobs[name] = { texts = { raw }, rolls = jobs.rolls(raw), last = jobs.last(raw) }
    world.sched:spawn(nil, operator, world, name)
  end
  world.keeps_agent = dice:chance(0.25)
  if world.keeps_agent then world.sched:spawn(nil, keep_agent, world) end
  local kinds = {}
  for _, kind in ipairs { "engine", "reset", "registry", "port", "removal", "killing", "garbage", "copy" } do
    if dice:chance(0.35) then kinds[#kinds + 1] = kind end
  end
  if #kinds > 0 and not opts.gentle then world.sched:spawn(nil, fate, world, kinds, dice:between(2, 30)) end
  local done = false
  world.sched:spawn(nil, function()
    sleep(world, world.chaos)
    sleep(world, 0.001)
    calm(world)
    await_rest(world)
    stop_everything(world)
    done = true
  end)
  local how = world.sched:run(function() return done or #world.violations > 5 end, ENOUGH)
  if not done and #world.violations == 0 then world:violate("the story does not end: %s", how) end
  if done then world.invariants:finish(world.before) end
end

return M
