-- scripts/rolling-restart.lua, on containers of a real engine.
local containers = require "spec.scripts.containers"
local dockrun = require "dockrun"
local process = require "spec.process"

describe("rolling-restart.lua", function()
  local set

  before_each(function() set = containers.new() end)
  after_each(function() set:close() end)

  local STAYS = "exec sleep 600"
  local function ends_later(code) return ("test -e /seen && exit %d; touch /seen; exec sleep 600"):format(code) end

  local function restart(...) return process.run(set:script("rolling-restart.lua", "--settle", "0.3", ...)) end

  local function now() return ("%d.%09d"):format(dockrun.clock()) end

  -- The events of the set's containers while action() ran: {"die a", "start a", …}, and when, in seconds.
  local function watch(action)
    local since = now()
    action()
    local happened, times = {}, {}
    local filters = { type = { "container" }, event = { "die", "start" }, label = { set.label } }
    for event in assert(set.engine:events { since = since, ["until"] = now(), filters = filters }) do
      happened[#happened + 1] = ("%s %s"):format(event.Action, event.Actor.Attributes.name:sub(#set.label + 2))
      times[#times + 1] = event.timeNano / 1e9
    end
    return happened, times
  end

  local function lines(...)
    local list = {}
    for i, line in ipairs { ... } do list[i] = line:gsub("@", set.label .. "_") .. "\n" end
    return table.concat(list)
  end

  it("restarts each container once, in the order of names, and only while the others are up", function()
    for _, name in ipairs { "c", "a", "b" } do set:run(name, STAYS) end
    local result
    local happened, times = watch(function() result = restart(set.label) end)
    assert.equal(0, result.code, result.stderr)
    assert.equal(lines("[1/3] @a is up", "[2/3] @b is up", "[3/3] @c is up"), result.stdout)
    assert.same({ "die a", "start a", "die b", "start b", "die c", "start c" }, happened)
    for i = 3, #times, 2 do assert.is_true(times[i] - times[i - 1] >= 0.3, "it did not let the one before settle") end
  end)

  it("stops at a container that does not come back, and does not touch the rest", function()
    set:run("a", STAYS)
    set:run("b", ends_later(7))
    set:run("c", STAYS)
    set:run("d", STAYS)
    local result
    local happened = watch(function() result = restart(set.label) end)
    assert.equal(1, result.code)
    assert.equal(lines("[1/4] @a is up", "[2/4] @b did not come back: it stopped with exit code 7"), result.stdout)
    assert.equal(lines("not restarted: @c", "not restarted: @d"), result.stderr)
    assert.same({ "die a", "start a", "die b", "start b", "die b" }, happened)
  end)

  it("does not count a container as up if the engine restarts it repeatedly", function()
    set:run("a", ends_later(8), { HostConfig = { NetworkMode = "none", RestartPolicy = { Name = "always" } } })
    local result = restart(set.label)
    assert.equal(1, result.code)
    assert.equal(lines "[1/1] @a did not come back: it ended, and the engine restarted it", result.stdout)
  end)

  it("waits until a container is healthy", function()
    local healthcheck = { Test = { "CMD-SHELL", "test -e /ready" }, Interval = 100 * 1000000, Retries = 100 }
    local id = set:run("a", "rm -f /ready; sleep 1; touch /ready; " .. STAYS, { Healthcheck = healthcheck })
    local result = restart(set.label)
    assert.equal(0, result.code, result.stdout)
    assert.equal("healthy", set:state(id).Health.Status)
  end)

  it("shows the state of a container that is not healthy in time", function()
    local healthcheck = { Test = { "CMD-SHELL", "false" }, Interval = 100 * 1000000, Retries = 1 }
    set:run("a", STAYS, { Healthcheck = healthcheck })
    local result = restart("--timeout", "6", set.label)
    assert.equal(1, result.code)
    assert.equal(lines "[1/1] @a did not come back: it is unhealthy after 6 s", result.stdout)
  end)

  it("takes the label's value into account", function()
    local function labels(value) return { Labels = { [set.label] = value } } end
    set:run("a", STAYS, labels "blue")
    set:run("b", STAYS, labels "green")
    local happened = watch(function() assert.equal(0, restart(set.label .. "=green").code) end)
    assert.same({ "die b", "start b" }, happened)
  end)

  it("does not touch stopped containers, and says that no container runs", function()
    local id = set:run_to_end("a", "true")
    local result = restart(set.label)
    assert.equal(1, result.code)
    assert.equal(("no running container has the label %s\n"):format(set.label), result.stderr)
    assert.is_false(set:state(id).Running)
  end)

  it("ends with 130 if it is interrupted, and touches no further container", function()
    set:run("a", STAYS)
    set:run("b", STAYS)
    local happened = watch(function()
      local since = now()
      local child <close> = process.start(set:script("rolling-restart.lua", "--settle", "600", set.label))
      local starts <close> = assert(set.engine:events {
        since = since, filters = { type = { "container" }, event = { "start" }, label = { set.label } },
      })
      assert(starts:read(20))
      child:kill "SIGINT"
      assert.equal(130, child:wait().code)
    end)
    assert.same({ "die a", "start a" }, happened)
  end)

  for _, case in ipairs {
    { "no label", {}, "missing argument 'label'" },
    { "an invalid time", { "--settle", "long", "x" }, "a number of seconds, got 'long'" },
  } do
    local what, args, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = process.run(set:script("rolling-restart.lua", table.unpack(args)))
      assert.equal(2, result.code)
      assert.matches(message, result.stderr, 1, true)
    end)
  end

  it("shows no control characters from the engine", function()
    local result = process.run(set:script("rolling-restart.lua", "no\27[31msuch"))
    assert.equal(1, result.code)
    assert.equal("no running container has the label no\\x1b[31msuch\n", result.stderr)
  end)
end)
