local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"

describe("dockrun run", function()
  local engine, endpoint, registry

  setup(function()
    engine, endpoint = engines.ready()
    registry = engines.registry().address
    local repo = registry .. "/redis"
    assert(engine:image_tag("busybox:1", { repo = repo, tag = "7" }))
    for line in assert(engine:image_push(repo, { tag = "7" })) do assert(not line.error, line.error) end
    assert(engine:image_remove(repo .. ":7"))
  end)

  it("tells each step as an event, in order", function()
    local name = jobs.unique "steps"
    local result = jobs.run(endpoint, jobs.text { name = name, image = registry .. "/redis:7", command = "exit 0" })
    local names = {}
    for i, event in ipairs(result.events) do names[i] = event.event end
    assert.same({ "received", "setup", "pulling", "pulled", "created", "started", "exited", "removed", "image_removed" }, names)
    for _, event in ipairs(result.events) do
      assert.truthy(event.time:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%d%d%d%dZ$", event.time)
      assert.same({ name, "group", "task" }, { event.job, event.group, event.task })
    end
    assert.equal(0, result.code)
    local handle = require("dockrun.driver.handle").parse(result.by.started.message)
    assert.same({ image_id = result.by.pulled.image_id, container_id = result.by.started.container_id }, handle)
  end)

  it("passes the task's exit code on in its event, and fails with 1", function()
    local result = jobs.run(endpoint, jobs.text { name = jobs.unique "code", image = "busybox:1", command = "exit 42" })
    assert.equal(42, result.by.exited.exit_code)
    assert.equal(1, result.code)
  end)

  it("tells the signal that ended a task", function()
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "signal", image = "busybox:1", command = "sh -c 'kill -9 $$'; exit $?",
    })
    assert.same({ 137, 9, false }, { result.by.exited.exit_code, result.by.exited.signal, result.by.exited.oom })
  end)

  it("kills a task that ignores SIGTERM once its kill_timeout is over", function()
    local name = jobs.unique "stubborn"
    local child <close> = jobs.start(endpoint, jobs.text {
      name = name, image = "busybox:1", command = "trap '' TERM; echo ready; while :; do sleep 1; done",
    })
    local _ <close> = child.file
    child:event "started"
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert.equal(137, child:event("exited").exit_code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("kills at once on a second Ctrl-C", function()
    local name = jobs.unique "impatient"
    local text = jobs.text { name = name, image = "busybox:1", command = "trap '' TERM; while :; do sleep 1; done" }
    local child <close> = jobs.start(endpoint, (text:gsub('kill_timeout = "1s"', 'kill_timeout = "50s"')))
    local _ <close> = child.file
    child:event "started"
    child:kill "SIGINT"
    child:event "killing"
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("runs every task of every group, count times", function()
    local name = jobs.unique "many"
    local result = jobs.run(endpoint, ([[
return job %q {
  type = "batch",
  group "a" { count = 3, task "one" { driver = "docker", config = { image = "busybox:1", command = "true" } } },
  group "b" { restart = { attempts = 0 }, task "two" { driver = "docker", config = { image = "busybox:1", command = "false" } } },
}]]):format(name))
    local exits = {}
    for _, event in ipairs(result.events) do
      if event.event == "exited" then exits[#exits + 1] = event.group .. event.exit_code end
    end
    table.sort(exits)
    assert.same({ "a0", "a0", "a0", "b1" }, exits)
    assert.equal(1, result.code)
  end)

  it("takes the same job as JSON", function()
    local name = jobs.unique "json"
    local result = jobs.run(endpoint, dockrun.json.encode {
      job = { [name] = { type = "batch", group = { g = { restart = { attempts = 0 }, task = { t = {
        driver = "docker", config = { image = "busybox:1", command = "sh", args = { "-c", "exit 5" } },
        resources = { memory = 32 },
      } } } } } },
    }, nil, ".json")
    assert.equal(5, result.by.exited.exit_code)
  end)

  for mode, expected in pairs { none = "none", host = "host", default = "default", bridge = "bridge" } do
    it(("runs with network_mode %s"):format(mode), function()
      local name = jobs.unique "net"
      local child <close> = jobs.start(endpoint, jobs.text {
        name = name, image = "busybox:1", command = "sleep 60", config = ("network_mode = %q,"):format(mode),
        resources = "memory = 32, network = { dynamic_ports = { 'web' } }",
      })
      local _ <close> = child.file
      local started = child:event "started"
      local container = assert(engine:container_inspect(started.container_id))
      assert.equal(expected, container.HostConfig.NetworkMode)
      local published = next(container.HostConfig.PortBindings or {}) ~= nil
      assert.equal(mode == "bridge" or mode == "default", published)
      local port = tostring(started.ports[1].host_port)
      local told = false
      for _, line in ipairs(container.Config.Env) do told = told or line == "NOMAD_PORT_web=" .. port end
      assert.is_true(told, "no NOMAD_PORT_web=" .. port)
      child:kill "SIGINT"
      child:wait()
      assert.same({}, jobs.containers(engine, name))
    end)
  end

  it("binds on the address of --bind-ip, and tells the task that address", function()
    local name = jobs.unique "bind"
    local child <close> = jobs.start(endpoint, jobs.text {
      name = name, image = "busybox:1", command = "sleep 60", resources = "memory = 32, network = { dynamic_ports = { 80 } }",
    }, { "--bind-ip", "127.0.0.1" })
    local _ <close> = child.file
    local started = child:event "started"
    local container = assert(engine:container_inspect(started.container_id))
    assert.equal("127.0.0.1", container.HostConfig.PortBindings["80/udp"][1].HostIp)
    assert.equal("127.0.0.1", started.ports[1].ip)
    child:kill "SIGINT"
    child:wait()
  end)

  it("shows the tasks' output by name, all of it, and diagnostics apart from it", function()
    local path, file = jobs.write(jobs.text {
      name = jobs.unique "output", image = "busybox:1", command = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done",
    })
    local _ <close> = file
    local result = jobs.dockrun(endpoint, { "run", path })
    local lines = {}
    for i = 0, 499 do lines[#lines + 1] = ("task | line %d\n"):format(i) end
    assert.equal(table.concat(lines), result.stdout, result.stderr)
    assert.truthy(result.stderr:find "dockrun: info: .*exit code 0")
  end)

  it("leaves tasks running with -d; status, logs and stop know them", function()
    local name = jobs.unique "detached"
    local path, file = jobs.write(jobs.text {
      name = name, image = "busybox:1", command = "echo hello; echo oops >&2; sleep 600",
      resources = "memory = 32, network = { dynamic_ports = { 80 } }",
    })
    local _ <close> = file
    local detached = jobs.dockrun(endpoint, { "run", "-d", path })
    assert.equal(0, detached.code, detached.stderr)

    local status = jobs.dockrun(endpoint, { "status", name, "--json" })
    local job = dockrun.json.decode(status.stdout).jobs[1]
    assert.same({ name, "running", 1 }, { job.name, job.status, #job.tasks })
    local task = job.tasks[1]
    assert.same({ "group", "task", "running", "busybox:1", 0 }, { task.group, task.task, task.state, task.image, task.restarts })
    assert.equal(80, task.ports[1].container_port)
    assert.truthy(jobs.dockrun(endpoint, { "status" }).stdout:find(name, 1, true))

    local logs = jobs.dockrun(endpoint, { "logs", name .. "/task" })
    assert.same({ "hello\n", "oops\n" }, { logs.stdout, logs.stderr })
    local last = jobs.dockrun(endpoint, { "logs", "--tail", "1", "--json", name })
    assert.truthy(last.stdout:find '"line":"')

    local stopped = jobs.dockrun(endpoint, { "stop", "--json", name })
    assert.equal(0, stopped.code)
    assert.truthy(stopped.stdout:find '"event":"removed"')
    assert.same({}, jobs.containers(engine, name))
    assert.equal(0, jobs.dockrun(endpoint, { "stop", name }).code)
    assert.equal(1, jobs.dockrun(endpoint, { "stop", jobs.unique "nobody" }).code)
  end)
end)
