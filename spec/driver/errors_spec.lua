-- What can go wrong with a task, each on the real engine: a clear message, the right exit code, nothing left behind.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local uv = require "luv"

-- Brings the busybox to a registry, and leaves it under that name there alone.
local function push(engine, ref)
  local repo, tag = ref:match "^(.+):([^:]+)$"
  assert(engine:image_tag("busybox:1", { repo = repo, tag = tag }))
  for line in assert(engine:image_push(repo, { tag = tag })) do assert(not line.error, line.error) end
  assert(engine:image_remove(ref))
end

describe("a task that cannot be as asked", function()
  local engine, endpoint, registry

  setup(function()
    engine, endpoint = engines.ready()
    registry = engines.registry().address
  end)

  -- Errors of the specification: found before anything happens.
  for _, case in ipairs {
    { "no image", "config = { command = 'true' }", "image" },
    { "network_mode container:x", "config = { image = 'busybox:1', network_mode = 'container:x' }", "container:x" },
    { "memory 0", "config = { image = 'busybox:1' }, resources = { memory = 0 }", "memory" },
    { "cpu 0", "config = { image = 'busybox:1' }, resources = { cpu = 0 }", "cpu" },
    { "an unknown key", "config = { imgae = 'busybox:1', image = 'busybox:1' }", "config.imgae" },
    { "a reserved port asked twice",
      "config = { image = 'busybox:1' }, resources = { network = { reserved_ports = { 30123, 30123 } } }", "30123" },
  } do
    local what, body, named = table.unpack(case)
    it("is refused with exit code 2: " .. what, function()
      local name = jobs.unique "bad"
      local path, file = jobs.write(("return job %q { group 'g' { task 't' { driver = 'docker', %s } } }"):format(name, body))
      local _ <close> = file
      for _, command in ipairs { "run", "validate" } do
        local result = jobs.dockrun(endpoint, { command, path })
        assert.equal(2, result.code)
        assert.truthy(result.stderr:find(named, 1, true), result.stderr)
        assert.falsy(result.stderr:find "traceback")
      end
      assert.same({}, jobs.containers(engine, name))
    end)
  end

  local function fails(text, expected)
    local result = jobs.run(endpoint, text)
    assert.equal(1, result.code)
    local failed = assert(result.by.failed, result.stdout .. result.stderr)
    assert.truthy(failed.message:find(expected, 1, true), failed.message)
    assert.same({}, jobs.containers(engine, failed.job))
    return result
  end

  it("fails if the registry does not have the image", function()
    fails(jobs.text { name = jobs.unique "absent", image = registry .. "/nowhere:1", command = "true" }, "not found")
  end)

  it("fails if the registry is down", function()
    local other = engines.start_registry()
    local address = other.address
    other:stop()
    fails(jobs.text { name = jobs.unique "down", image = address .. "/nowhere:1", command = "true" }, "connection refused")
  end)

  it("uses the local latest if a newer one cannot be pulled, and says so", function()
    local address = "127.0.0.1:1"
    local _ <close> = setmetatable({}, { __close = function() engine:image_remove(address .. "/kept:latest") end })
    assert(engine:image_tag("busybox:1", { repo = address .. "/kept", tag = "latest" }))
    local result = jobs.run(endpoint, jobs.text { name = jobs.unique "kept", image = address .. "/kept", command = "true" })
    assert.equal(0, result.code)
    assert.truthy(result.by.pulling.message:find "using the local image")
    assert(engine:image_inspect(address .. "/kept:latest"), "an image that dockrun did not pull was removed")
  end)

  it("fails if the image has no such command, and leaves no container", function()
    local text = jobs.text { name = jobs.unique "nocmd", image = "busybox:1", command = "" }
    fails(text:gsub('command = "sh", args = %b{},', 'command = "/no/such",'), "/no/such")
  end)

  it("names the process that has its reserved port", function()
    local socket = uv.new_tcp()
    local _ <close> = setmetatable({}, { __close = function() socket:close() end })
    assert(socket:bind("0.0.0.0", 0))
    assert(socket:listen(1, function() end))
    local port = socket:getsockname().port
    local result = fails(jobs.text {
      name = jobs.unique "taken", image = "busybox:1", command = "true",
      resources = ("memory = 32, network = { reserved_ports = { %d } }"):format(port),
    }, tostring(port))
    assert.truthy(result.by.failed.message:find(("pid %d"):format(uv.os_getpid()), 1, true), result.by.failed.message)
  end)

  it("names the container that has its reserved port", function()
    local holder = jobs.unique "holder"
    local child <close> = jobs.start(endpoint, jobs.text {
      name = holder, image = "busybox:1", command = "sleep 60", resources = "memory = 32, network = { dynamic_ports = { 80 } }",
    })
    local _ <close> = child.file
    local started = child:event "started"
    fails(jobs.text {
      name = jobs.unique "taken", image = "busybox:1", command = "true",
      resources = ("memory = 32, network = { reserved_ports = { %d } }"):format(started.ports[1].host_port),
    }, ("task 'task' of job '%s'"):format(holder))
    child:kill "SIGINT"
    child:wait()
  end)

  it("cannot reach an engine that is not there: exit code 3", function()
    local path, file = jobs.write(jobs.text { name = "x", image = "busybox:1", command = "true" })
    local _ <close> = file
    for _, command in ipairs {
      { "run", path }, { "run", "-d", path }, { "plan", path }, { "status" }, { "stop", "x" }, { "logs", "x" }, { "stats" },
      { "exec", "x", "--", "true" },
    } do
      local result = jobs.dockrun("unix:///no/such.sock", command)
      assert.equal(3, result.code)
      assert.truthy(result.stderr:find("unix:///no/such.sock", 1, true), result.stderr)
      assert.falsy(result.stderr:find "traceback")
    end
  end)

  it("has no attribute of an engine that is not there, and no error", function()
    local result = jobs.dockrun("unix:///no/such.sock", { "fingerprint", "--json" })
    assert.equal(0, result.code)
    local attributes = dockrun.json.decode(result.stdout)
    assert.is_nil(attributes["driver.docker"])
    assert.equal("linux", attributes["kernel.name"])
    local here = dockrun.json.decode(jobs.dockrun(endpoint, { "fingerprint", "--json" }).stdout)
    assert.equal("1", here["driver.docker"])
    assert.equal(engine:version().Version, here["driver.docker.version"])
  end)

  it("ends by the code of a container that was removed behind its back", function()
    local name = jobs.unique "removed"
    local child <close> = jobs.start(endpoint, jobs.text { name = name, image = "busybox:1", command = "sleep 60" })
    local _ <close> = child.file
    local started = child:event "started"
    assert(engine:container_remove(started.container_id, { force = true }))
    local result = child:wait()
    assert.equal(1, result.code)
    assert.equal(137, child:event("exited").exit_code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("keeps an image that another program's container uses", function()
    local ref = registry .. "/shared-image:" .. jobs.unique "1"
    push(engine, ref)
    local name = jobs.unique "shared"
    local child <close> = jobs.start(endpoint, jobs.text { name = name, image = ref, command = "sleep 60" })
    local _ <close> = child.file
    child:event "started"
    local other = assert(engine:container_create { body = { Image = ref, Cmd = { "true" } } })
    local _ <close> = setmetatable({}, { __close = function()
      engine:container_remove(other.Id, { force = true })
      engine:image_remove(ref)
    end })
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert(engine:image_inspect(ref), "the image went from under another's container")
    assert.same({}, jobs.containers(engine, name))
  end)

  it("is not hurt by a leftover of its name, and never takes another's container away", function()
    local driver = require "dockrun.driver.docker"
    local name = jobs.unique "leftover"
    local body = { Image = "busybox:1", Cmd = { "true" }, Labels = { ["dockrun.intent"] = "x" } }
    local first = assert(driver.create(engine, name, body))
    local second = assert(driver.create(engine, name, body))
    local _ <close> = setmetatable({}, { __close = function() engine:container_remove(name, { force = true }) end })
    assert.not_equal(first, second)
    engine:container_remove(second, { force = true })
    local foreign = assert(engine:container_create { name = name, body = { Image = "busybox:1", Cmd = { "true" } } })
    local created, err = driver.create(engine, name, body)
    assert.is_nil(created)
    assert.truthy(err.message:find "this state did not record")
    assert(engine:container_inspect(foreign.Id))
  end)

  it("takes another port, invisibly, if one is lost between the probe and the engine's bind", function()
    local name = jobs.unique "race"
    local hooks, hooks_file = jobs.write [[
      local uv = require "luv"
      local taken
      return { prestart = function(task)  -- after the port was chosen, before the engine binds it
        if taken then return end
        taken = uv.new_tcp()
        assert(taken:bind("0.0.0.0", task.ports[1].host_port))
        assert(taken:listen(1, function() end))
      end }
    ]]
    local _ <close> = hooks_file
    local result = jobs.run(endpoint, jobs.text {
      name = name, image = "busybox:1", command = "echo $NOMAD_PORT_80; true",
      resources = "memory = 32, network = { dynamic_ports = { 80 } }",
    }, { "--hooks", hooks })
    assert.equal(0, result.code)
    local first
    for _, event in ipairs(result.events) do first = first or event.ports and event.ports[1].host_port end
    assert.not_equal(first, result.by.started.ports[1].host_port)
    assert.same({}, jobs.containers(engine, name))
  end)
end)

-- A way to a registry that gives so many bytes of it and then no more. Returns its address and a queue that tells when.
local function stalling_proxy(registry, bytes)
  local host, port = registry:match "^(.+):(%d+)$"
  local server, stalled, sockets = uv.new_tcp(), dockrun.queue(), {}
  sockets[1] = server
  assert(server:bind("127.0.0.1", 0))
  assert(server:listen(16, function()
    local client, upstream = uv.new_tcp(), uv.new_tcp()
    table.move({ client, upstream }, 1, 2, #sockets + 1, sockets)
    server:accept(client)
    upstream:connect(host, tonumber(port), function()
      client:read_start(function(_, data)
        if data then upstream:write(data) end
      end)
      upstream:read_start(function(_, data)
        bytes = bytes - #(data or "")
        if data and bytes > 0 then client:write(data) elseif bytes <= 0 then stalled:push(true) end
      end)
    end)
  end))
  local closing = setmetatable({}, { __close = function()
    for _, socket in ipairs(sockets) do socket:close() end
  end })
  return ("127.0.0.1:%d"):format(server:getsockname().port), stalled, closing
end

describe("an engine that dies", function()
  it("in mid-pull is an error of the pull, and the next run works", function()
    local e <close> = engines.start()
    local direct = assert(dockrun.connect { endpoint = e.endpoint })
    engines.image(e, "busybox:1")
    local registry = engines.registry().address
    push(direct, registry .. "/slow:1")
    assert(direct:image_remove "busybox:1")  -- or its layer need not be fetched
    local address, stalled, closing = stalling_proxy(registry, 200000)
    local _ <close> = closing
    local child <close> = jobs.start(e.endpoint, jobs.text {
      name = jobs.unique "dies", image = address .. "/slow:1", command = "true",
    })
    local _ <close> = child.file
    assert(stalled:pop(120), "the pull never got to its layer")
    e:kill()
    local result = child:wait()
    assert.equal(1, result.code)
    assert.truthy(child:event("failed").message:find "the Docker engine at", result.stdout)
    e:restart()
    local again = jobs.run(e.endpoint, jobs.text { name = jobs.unique "again", image = registry .. "/slow:1", command = "true" })
    assert.equal(0, again.code)
    assert.same({}, assert(direct:container_list { all = true }))
    assert.same({}, assert(direct:image_list { all = true }))
  end)

  it("and comes back has its task's end told, with the true exit code", function()
    local e <close> = engines.start { args = { "--live-restore" } }
    local direct = assert(dockrun.connect { endpoint = e.endpoint })
    engines.image(e, "busybox:1")
    local child <close> = jobs.start(e.endpoint, jobs.text {
      name = jobs.unique "back", image = "busybox:1", command = "trap 'exit 9' TERM; touch /local/ready; while :; do sleep 0.1; done",
    })
    local _ <close> = child.file
    local started = child:event "started"
    jobs.await_ready(started.alloc)
    local pid = assert(direct:container_inspect(started.container_id)).State.Pid
    e:kill()
    assert(uv.kill(pid, "sigterm"))
    eventually("the task has ended", function() return not uv.fs_stat(("/proc/%d/exe"):format(pid)) end)
    e:restart()
    assert.equal(1, child:wait().code)
    assert.equal(9, child:event("exited").exit_code)
  end)
end)
