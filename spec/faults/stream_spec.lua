-- Faults of the engine's event stream, and of the engine itself: no task is lost, no task is started twice, and each end is
-- reported with its true exit code.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local worlds = require "spec.faults.world"

-- A command that ends as soon as a file appears in its directory.
local WAITS = "while [ ! -e /alloc/end ]; do sleep 0.05; done; exit 9"

-- Lets the task of a world end.
local function let_end(world, alloc)
  local file <close> = assert(io.open(("%s/alloc/%s/alloc/end"):format(world.state_dir, alloc), "w"))
  assert(file)
end

-- Waits until the engine itself reports that a container has ended.
local function await_end(engine, id)
  eventually("it has ended", function()
    local found = engine:container_inspect(id)
    return found and not found.State.Running
  end)
end

local function start(world, options)
  local words = { "run", "--json", world.job_file }
  for _, option in ipairs(options or {}) do
    words[#words + 1] = "--set"
    words[#words + 1] = option
  end
  local child = world:start(words)
  local started = dockrun.json.decode((child:wait_for '([^\n]*"event":"started"[^\n]*)'))
  return child, started
end

-- Checks the end of a job that started once and ended with 9.
local function ends_once(world, child)
  local result = child:wait()
  local events, by = worlds.events(result.stdout)
  assert.equal(1, result.code, result.stdout .. result.stderr)
  assert.same({ 1, 9 }, { #by.exited, by.exited[1] and by.exited[1].exit_code }, result.stdout)
  assert.equal(1, world:count "start")
  assert.same({}, world:leftovers(events), result.stdout .. result.stderr)
  return result
end

describe("the stream of events", function()
  local endpoint

  setup(function()
    local shared = engines.shared()
    endpoint = shared.endpoint
    engines.image(shared, "busybox:1")
  end)

  local function new_world() return worlds.new(endpoint, { command = WAITS, exit_code = 9, attempts = 0 }) end

  local function streams(requests)
    local list = {}
    for _, request in ipairs(requests) do
      if request.path:find "/events" then list[#list + 1] = request end
    end
    return list
  end

  it("resumes after a break, at a time of the engine's clock", function()
    local world <close> = new_world()
    local requests = world.proxy:arm {}
    local child, started = start(world)
    local last
    for event in assert(world.engine:events {
      since = "0", ["until"] = tostring(os.time() + 1), filters = { container = { started.container_id } },
    }) do
      if event.Action == "start" then last = event end
    end
    world.proxy:drop()
    eventually("a second stream", function() return #streams(requests) > 1 end)
    local since = streams(requests)[2].path:match "since=([%d.]+)"
    assert.equal(tostring(last.time), since:match "^%d+")
    let_end(world, started.alloc)
    local said = ends_once(world, child).stderr
    assert.same({ 1, 1 }, { select(2, said:gsub("lost the engine's events: ", "")), select(2, said:gsub("events again", "")) }, said)
  end)

  it("misses no end of a task while the engine is away and its socket is replaced", function()
    local world <close> = new_world()
    local child, started = start(world)
    world.proxy:away()
    let_end(world, started.alloc)
    await_end(world.engine, started.container_id)
    world.proxy:back()
    ends_once(world, child)
  end)

  it("may repeat every event", function()
    local world <close> = new_world()
    world.proxy:arm { { match = "/events", direction = "down", byte = 300, action = "double", always = true } }
    local child, started = start(world)
    let_end(world, started.alloc)
    ends_once(world, child)
    assert.truthy(world.proxy.faults[1].fired)
  end)

  it("may have a gap: missing events are found by other means", function()
    local world <close> = new_world()
    world.proxy:arm { { match = "/events", direction = "down", byte = 300, action = "drop", count = math.maxinteger, always = true } }
    local child, started = start(world, { "docker.watch_interval=0.5" })
    let_end(world, started.alloc)
    ends_once(world, child)
    assert.truthy(world.proxy.faults[1].fired)
  end)

  it("may stall, together with every call", function()
    local world <close> = new_world()
    local child, started = start(world, { "docker.watch_interval=0.5", "docker.timeout=1" })
    world.proxy:freeze()
    let_end(world, started.alloc)
    await_end(world.engine, started.container_id)
    dockrun.sleep(2) -- past the time-out of calls
    world.proxy:thaw()
    ends_once(world, child)
  end)

  it("may break repeatedly", function()
    local world <close> = new_world()
    local child, started = start(world)
    for _ = 1, 10 do
      world.proxy:drop()
      dockrun.sleep(0.05)
    end
    let_end(world, started.alloc)
    ends_once(world, child)
  end)
end)

describe("an engine", function()
  local function new_world(e, opts)
    engines.image(e, "busybox:1")
    return worlds.new(e.endpoint, opts or { command = WAITS, exit_code = 9, attempts = 0 })
  end

  -- With live-restore containers outlive it. Without it, dockrun is paused while an engine shuts down: asked to start a container
  -- just then, dockerd 20.10 may do it and never be able to remove it again.
  for _, case in ipairs {
    { "that is stopped and started", "SIGSTOP", function(e) e:restart() end },
    { "that is killed and started", "SIGCONT", function(e)
      e:kill()
      e:restart()
    end },
  } do
    local what, hold, disturb = table.unpack(case)
    it(("%s with --live-restore loses nothing"):format(what), function()
      local e <close> = engines.start { args = { "--live-restore" } }
      local world <close> = new_world(e)
      local child, started = start(world)
      disturb(e)
      let_end(world, started.alloc)
      ends_once(world, child)
    end)

    it(("%s without it stops its containers, and the restart policy decides"):format(what), function()
      local e <close> = engines.start()
      local world <close> = new_world(e, {
        command = "[ -e /alloc/again ] && exit 0; touch /alloc/again; exec sleep 1000", attempts = 20, delay = 0.5,
      })
      local child = start(world)
      child:kill(hold)
      disturb(e)
      child:kill "SIGCONT"
      local result = child:wait()
      local events, by = worlds.events(result.stdout)
      assert.equal(0, result.code, result.stdout .. result.stderr)
      assert.equal(2, #by.exited, result.stdout)
      assert.same({ world:count "start", 0 }, { #by.exited, by.exited[#by.exited].exit_code }, result.stdout)
      assert.same({}, world:leftovers(events), result.stdout .. result.stderr)
    end)
  end

  it("that hangs for a while is waited for", function()
    local e <close> = engines.start()
    local world <close> = new_world(e)
    local child, started = start(world, { "docker.timeout=1", "docker.watch_interval=0.5" })
    e:kill "sigstop"
    let_end(world, started.alloc)
    dockrun.sleep(3) -- past the time-out of calls
    e:kill "sigcont"
    ends_once(world, child)
  end)
end)
