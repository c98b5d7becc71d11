-- Checks of running tasks, on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"

describe("a task's health", function()
  local engine, shared

  setup(function()
    shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
    engines.image(shared, "checked:1", {
      changes = { [[HEALTHCHECK --interval=200ms --retries=1 CMD ["test","-e","/tmp/ok"] ]] },
    })
  end)

  -- Runs a task with a check until it has said these events, in this order; gives the last event of each name, and which
  -- of `healthy` and `unhealthy` came, in order. A task that waits at the gate "sick" goes on once it is healthy.
  local function watch(fields, ...)
    fields.name, fields.image = jobs.unique "health", fields.image or "busybox:1"
    fields.resources = fields.resources or [[memory = 32, network = { dynamic_ports = { 8080 } }]]
    local child <close> = jobs.start(shared.endpoint, jobs.text(fields))
    local _ <close> = child.file
    for _, name in ipairs { ... } do
      local event = child:next_event(name)
      if name == "healthy" then jobs.open(event.alloc, "sick") end
    end
    child:kill "SIGINT"
    child:wait()
    assert.same({}, jobs.containers(engine, fields.name))
    local by, told = {}, {}
    for _, event in ipairs(child:events()) do
      by[event.event] = event
      if event.event == "healthy" or event.event == "unhealthy" then told[#told + 1] = event.event end
    end
    return by, told
  end

  local function check(fields) return ("check = { interval = '100ms', timeout = '2m', %s },"):format(fields) end

  -- A shell that makes a file, and takes it away once the task is healthy.
  local function sickens(file, serve)
    return ("echo hello >%s; %s %s; rm %s; sleep 600"):format(file, serve or "", jobs.gate "sick", file)
  end

  it("is told by HTTP checks", function()
    local by, told = watch({
      command = "mkdir /tmp/www; " .. sickens("/tmp/www/index.html", "httpd -p 8080 -h /tmp/www;"),
      task = check "type = 'http', failure_threshold = 2",
    }, "healthy", "unhealthy")
    assert.equal("unhealthy", told[#told])
    assert.matches("http check 1: status 404", by.unhealthy.message, 1, true)
  end)

  it("is told by TCP checks", function()
    local by = watch({
      command = "sleep 600", config = "network_mode = 'host',", task = check "type = 'tcp', name = 'listens'",
      resources = [[memory = 32, network = { dynamic_ports = { "web" } }]],
    }, "unhealthy")
    assert.matches("^listens: .*ECONNREFUSED", by.unhealthy.message)
  end)

  it("is told by commands in the container", function()
    local by, told = watch({
      command = sickens "/tmp/ok",
      task = check [[type = "exec", failure_threshold = 3, command = "sh",
        args = { "-c", "test -e /tmp/ok || { echo not there; exit 5; }" }]],
    }, "healthy", "unhealthy")
    assert.equal("unhealthy", told[#told])
    assert.matches("'sh' ended with 5: not there", by.unhealthy.message, 1, true)
  end)

  it("is told by a function of the job", function()
    local by = watch({
      command = "sleep 600",
      task = check [[type = "lua", run = function(task) return false, "no luck with " .. task.name end]],
    }, "unhealthy")
    assert.matches("lua check 1: no luck with task", by.unhealthy.message, 1, true)
  end)

  it("is told by the image's HEALTHCHECK", function()
    local _, told = watch({ image = "checked:1", command = sickens "/tmp/ok" }, "healthy", "unhealthy")
    assert.equal("unhealthy", told[#told])
  end)

  it("is good only once all its checks pass as often as they must", function()
    local by = watch({
      command = "sleep 600",
      task = [[check = {
        { type = "exec", command = "true", interval = "50ms" },
        { type = "lua", interval = "50ms", success_threshold = 3, run = (function()
          local times = 0
          return function()
            times = times + 1
            return times > 2, tostring(times)
          end
        end)() },
      },]],
    }, "healthy")
    assert.is_true(by.unhealthy ~= nil and by.unhealthy.time < by.healthy.time)
  end)

  it("fails a check that takes too long, and one that raises", function()
    local by = watch({
      command = "sleep 600", task = [[check = { type = "lua", timeout = "100ms", run = function() dockrun.sleep(9) end },]],
    }, "unhealthy")
    assert.matches("the function took more than 0.1 s", by.unhealthy.message, 1, true)
    by = watch({ command = "sleep 600", task = [[check = { type = "lua", run = function() error "broken" end },]] }, "unhealthy")
    assert.matches("broken", by.unhealthy.message)
  end)

  it("restarts the task by check_restart, once its grace is over, within the restart policy", function()
    local result = jobs.run(shared.endpoint, jobs.text {
      name = jobs.unique "sick", image = "busybox:1", command = "sleep 600", restart = [[attempts = 1, delay = "50ms"]],
      task = check [[type = "exec", command = "false", check_restart = { limit = 2, grace = "300ms" }]],
    })
    assert.equal(1, result.code)
    local starts, killings = 0, 0
    for _, event in ipairs(result.events) do
      starts = starts + (event.event == "started" and 1 or 0)
      killings = killings + (event.event == "killing" and 1 or 0)
    end
    assert.same({ 2, 2 }, { starts, killings })
    assert.matches("failed 2 times in a row: 'false' ended with 1", result.by.killing.message, 1, true)
    assert.matches("more than 1 restarts", result.by.not_restarting.message)
  end)

  -- In this process: what is looked at, and when, is the spec's own.
  local agents = require "spec.agent.agents"
  local servers = require "spec.server"

  -- Runs a job until `reached(agent)`, then stops it. Gives the last event of each name.
  local function inside(fields, reached)
    local agent <close> = agents.new(shared.endpoint)
    local job = agents.job(fields)
    agent:submit(job)
    eventually("it is so far", function() return reached(agent, agent.tasks[1]) end)
    agent:stop_job(nil, "the spec")
    agent:wait()
    local by = {}
    for _, event in ipairs(agent.told) do by[event.event] = event end
    return by, agent.told
  end

  local function said(name) return function(agent) return agents.names(agent.told):find(name, 1, true) ~= nil end end

  it("fails an HTTP check and a command that do not answer in time", function()
    local server <close> = servers.start(function(connection) connection:await_end() end, { tcp = true })
    local port = server.url:match ":(%d+)"
    local by = inside({
      command = "sleep 600", config = "network_mode = 'host',",
      resources = ("memory = 32, network = { port = { web = { to = %s } } }"):format(port),
      task = "check = { type = 'lua', run = function() return true end },",
    }, said "healthy")
    assert.is_nil(by.unhealthy)
    local checks = require "dockrun.task.checks"
    local task = { context = { ports = { { label = "web", ip = "127.0.0.1", host_port = math.tointeger(port) } } } }
    local before = dockrun.now()
    local ok, why = checks.run(task, { type = "http", path = "/", method = "GET", timeout = 0.2 })
    assert.is_false(ok)
    assert.is_string(why)
    assert.is_true(dockrun.now() - before > 0.1)  -- a timer counts from when its loop last looked at the clock
    by = inside({
      command = "sleep 600", task = [[check = { type = "exec", command = "sleep", args = { "600" }, timeout = "1s" },]],
    }, said "unhealthy")
    assert.matches("'sleep' took more than 1 s", by.unhealthy.message, 1, true)
  end)

  it("passes a TCP check where somebody listens", function()
    inside({
      command = "exec nc -lk -p $NOMAD_PORT_web -e cat", config = "network_mode = 'host',",
      resources = "memory = 32, network = { dynamic_ports = { 'web' } }", task = check "type = 'tcp'",
    }, said "healthy")
  end)

  it("counts failures for check_restart only after the grace, and only in a row", function()
    local looks, began = 0, nil
    local job = { command = "sleep 600", restart = "attempts = 1, delay = 0",
      task = check [[type = "lua", run = function() return true end, check_restart = { limit = 3, grace = "400ms" }]] }
    local agent <close> = agents.new(shared.endpoint)
    local read = agents.job(job)
    local restarted
    read.groups[1].tasks[1].checks[1].interval = 0.05
    read.groups[1].tasks[1].checks[1].run = function()
      looks, began = looks + 1, began or dockrun.now()
      return looks % 3 == 0 and looks < 30, "look " .. looks  -- never three failures in a row before the 30th
    end
    agent.emitter:listen(function(event) restarted = restarted or event.event == "killing" and looks end)
    agent:submit(read)
    eventually("it is restarted", function() return restarted end)
    assert.is_true(restarted >= 30, "after " .. restarted .. " looks")
    assert.is_true(dockrun.now() - began >= 0.4)
  end)

  it("leaves the image's HEALTHCHECK out where the job says so", function()
    local by = inside({ image = "checked:1", command = "sleep 600", config = "healthchecks = { disable = true }," },
      function(_, task) return task:is_healthy() end)
    assert.is_nil(by.unhealthy)
  end)

  it("takes nothing for healthy that has a check, before the check passed", function()
    local go = false
    local agent <close> = agents.new(shared.endpoint)
    local read = agents.job { command = "sleep 600", task = check [[type = "lua", run = function() return true end]] }
    read.groups[1].tasks[1].checks[1].run = function() return go, "not yet" end
    agent:submit(read)
    local task = agent.tasks[1]
    while not task.watching do
      assert.is_false(task:is_healthy())
      dockrun.sleep(0.01)
    end
    assert.is_false(task:is_healthy())
    go = true
    while not task:is_healthy() do dockrun.sleep(0.02) end
    assert.equal("healthy", task.state)
  end)

  it("is not told by a command that an engine which is away could not run", function()
    local away = assert(require("dockrun.core.docker").connect { endpoint = "unix:///nonexistent/docker.sock" })
    local ok, why = require("dockrun.task.checks").run({ services = { engine = away }, container_id = "x" },
      { type = "exec", command = "true", timeout = 5 })
    assert.is_nil(ok)
    assert.matches("cannot reach the Docker engine", why)
  end)
end)
