-- What Podman says otherwise than Docker, from an engine that says the same. spec/long/podman_spec.lua has a real one.
local dockrun = require "dockrun"
local driver = require "dockrun.driver.docker"
local labels = require "dockrun.driver.labels"
local env = require "dockrun.task.env"
local health = require "dockrun.task.health"
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local plans = require "dockrun.agent.plan"
local servers = require "spec.server"
local watch = require "dockrun.driver.events"

local function state(status, more)
  local whole = { Status = status, Running = status == "running", ExitCode = 0, Pid = 0 }
  for key, value in pairs(more or {}) do whole[key] = value end
  return whole
end

describe("Podman", function()
  for _, event in ipairs { "die", "remove", "resync" } do
    it("tells of a container that is stopping: that is no end, although it does not run (after " .. event .. ")", function()
      local states = { state("stopping", { Pid = 5 }), state("stopping", { Pid = 5 }), state("exited", { ExitCode = 7 }) }
      local looks = 0
      local engine = {}
      function engine.container_inspect()
        looks = looks + 1
        return { State = states[math.min(looks, #states)] }
      end
      local events = dockrun.queue()
      events:push { action = event }
      local result = driver.wait(engine, "c", events)
      assert.same({ 7, 3 }, { result.exit_code, looks })
    end)
  end

  it("has states of a container before it runs", function()
    for _, status in ipairs { "created", "configured", "initialized", "stopping", "running" } do
      assert.is_false(driver.has_ended { State = state(status) }, status)
    end
    for _, status in ipairs { "exited", "dead", "stopped", "removing" } do
      assert.is_true(driver.has_ended { State = state(status) }, status)
    end
  end)

  it("has names of its own for the events that are asked for", function()
    local asked = dockrun.queue()
    local server <close> = servers.engine(function(connection, request)
      if request.line:find "/events" then
        asked:push(request.line)
        connection:write "HTTP/1.1 200 OK\r\n\r\n"
        connection:await_end()
        return false
      end
      connection:answer "OK"
    end)
    local watched = watch.new(assert(dockrun.connect { endpoint = server.endpoint }))
    assert(watched:start())
    local line = asked:pop(20)
    watched:stop()
    for _, name in ipairs { "die", "died", "destroy", "remove" } do assert.matches('%%22' .. name .. '%%22', line) end
  end)

  for what, told in pairs { ["an empty status"] = { Status = "" }, ["none"] = { Status = "none" }, ["no status"] = {} } do
    it("says by " .. what .. " that an image has no health check", function()
      local engine = { container_inspect = function() return { State = state("running", { Health = told }) } end }
      local one <close> = health.watch({ services = { engine = engine }, container_id = "c", context = { resolved = {} } }, error)
      assert.is_false(one:has_sources())
    end)
  end

  local function answering(status, body, headers)
    return servers.engine(function(connection) connection:answer(body, status, headers) end)
  end

  it("has no call that changes limits, and Docker has", function()
    for possible, server in pairs {
      [false] = answering("404 Not Found", "Not Found", "Content-Type: text/plain; charset=utf-8\r\n"),
      [true] = answering("404 Not Found", '{"message":"No such container: x"}', "Api-Version: 1.41\r\n"),
    } do
      local _ <close> = server
      assert.equal(possible, driver.can_update(assert(dockrun.connect { endpoint = server.endpoint })))
    end
  end)

  it("has a task replaced whose limits change, and the plan says why", function()
    local function job_of(memory)
      return assert(load.string(('return job "j" { group "g" { task "t" { config = { image = "x" }, resources = { memory = %d } } } }')
        :format(memory), "lua", "job.lua"))
    end
    local before, after = job_of(64), job_of(96)
    local group = before.groups[1]
    local record = {
      job = "j", group = "g", task = "t", alloc = "a", index = 0, container_id = "c", state = "running", adopt = true,
      definition = json.decode(labels.definition(group.tasks[1], env.meta(before, group, group.tasks[1]))),
      limits = { Memory = 64 * 1024 * 1024, MemoryReservation = 0 },
    }
    local asked = 0
    local function change(job, possible)
      local plan = plans.make(job, { record }, function()
        asked = asked + 1
        return possible
      end)
      return plan.allocs[1].tasks[1], plan.allocs[1].action
    end
    local one, action = change(after, false)
    assert.same({ "replace", "replace", "this engine cannot change the limits of a running container", "replace" },
      { one.action, action, one.reason, one.fields[1].forces })
    assert.same({ "in_place", "keep" }, { change(after, true).action, select(2, change(after, true)) })
    asked = 0
    assert.equal("none", change(before, false).action)
    assert.equal(0, asked)
  end)

  it("may take long to tell its version: the first ping does without", function()
    local go = dockrun.queue()
    local server <close> = servers.start(function(connection)
      for request in function() return connection:request() end do
        if request.line:find "/version" then go:pop() end
        connection:answer(request.line:find "/version" and '{"ApiVersion":"1.41"}' or request.line:find "_ping" and "OK" or "{}")
      end
    end)
    local engine = assert(dockrun.connect { endpoint = server.endpoint })
    local info = dockrun.spawn(engine.info, engine)
    assert.equal("OK", (engine:system_ping { timeout = 20 }))
    go:push(true)
    assert.same({}, info:await(20))
  end)
end)
