-- Checks of running tasks, on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
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

  -- Runs a task with a check until it has said these events, in this order; gives the events.
  local function watch(fields, ...)
    fields.name, fields.image = jobs.unique "health", fields.image or "busybox:1"
    fields.resources = fields.resources or [[memory = 32, network = { dynamic_ports = { 8080 } }]]
    local child <close> = jobs.start(shared.endpoint, jobs.text(fields))
    local _ <close> = child.file
    for _, event in ipairs { ... } do child:event(event, 15) end
    child:kill "SIGINT"
    child:wait(20)
    assert.same({}, jobs.containers(engine, fields.name))
    local by, told = {}, {}
    for _, event in ipairs(child:events()) do
      by[event.event] = event
      if event.event == "healthy" or event.event == "unhealthy" then told[#told + 1] = event.event end
    end
    return by, told
  end

  local function check(fields) return ("check = { interval = '100ms', timeout = '1s', %s },"):format(fields) end
  local SERVES = "mkdir /tmp/www; echo hello > /tmp/www/index.html; httpd -p 8080 -h /tmp/www; sleep 1; rm /tmp/www/index.html; sleep 600"

  it("is told by HTTP checks", function()
    local by, told = watch({ command = SERVES, task = check "type = 'http', failure_threshold = 2" }, "healthy", "unhealthy")
    assert.same({ "healthy", "unhealthy" }, told)
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
      command = "touch /tmp/ok; sleep 1; rm /tmp/ok; sleep 600",
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
    local _, told = watch({ image = "checked:1", command = "touch /tmp/ok; sleep 1; rm /tmp/ok; sleep 600" }, "healthy", "unhealthy")
    assert.same({ "healthy", "unhealthy" }, told)
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
end)
