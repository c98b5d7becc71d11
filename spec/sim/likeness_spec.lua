-- Compares the simulated engine with a real one: each example does the same on both, and expects the same answers.
local clients = require "spec.sim.client"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local faults = require "spec.sim.faults"
local programs = require "spec.sim.programs"
local schedulers = require "spec.sim.scheduler"
local sim_engines = require "spec.sim.engine"
local uv = require "luv"

local IMAGE, CHECKED, PULLED = "likeness:1", "likeness:checked", "likeness-pulled:1"

-- Fields that differ between two engines, or between two runs, are not compared.
local function plain(value, names)
  if type(value) == "table" then
    local copy = {}
    for key, item in pairs(value) do copy[key] = plain(item, names) end
    return copy
  end
  if type(value) ~= "string" then return value end
  for i, name in ipairs(names) do value = value:gsub(name:gsub("%-", "%%-"), "#" .. i) end
  return (value:gsub("127%.0%.0%.1:%d+/", "<registry>/"):gsub("sha256:%x+", "<image>"):gsub("%f[%w]%x%x%x%x%x%x%x%x%x%x%x%x%x*", "<id>"))
end

-- The actions of an example on either engine.
local Bench = {}
Bench.__index = Bench

function Bench:name()
  self.names[#self.names + 1] = ("likeness-%d-%d"):format(uv.os_getpid(), #self.names + 1)
  return self.names[#self.names]
end

--- Creates a container that runs a program (or a command).
function Bench:create(program, more)
  local body = { Image = IMAGE, Cmd = program[1] and program or programs.command(program), HostConfig = {} }
  for key, value in pairs(more or {}) do body[key] = value end
  return assert(self.engine:container_create { name = self:name(), body = body }).Id
end

--- Notes the result of a call: an answer, or an error's kind, status and message.
function Bench:note(value, err)
  if value == nil then value = { kind = err.kind, status = err.status, message = err.message } end
  self.seen[#self.seen + 1] = value
end

function Bench:state(id)
  local found = assert(self.engine:container_inspect(id))
  local state = found.State
  self:note {
    status = state.Status, running = state.Running, code = state.ExitCode, oom = state.OOMKilled, error = state.Error,
    has_pid = state.Pid > 0, was_started = not state.StartedAt:find "^0001", was_finished = not state.FinishedAt:find "^0001",
    health = state.Health and state.Health.Status,
  }
end

local ACTIONS = { "create", "start", "die", "oom", "kill", "stop", "destroy", "health_status", "update" }

function Bench:watch(since)
  return assert(self.engine:events { since = since, filters = { type = { "container" }, event = ACTIONS } })
end

--- Notes the events of a container up to the one of this name.
function Bench:events(stream, id, last)
  local list = {}
  repeat
    local event = assert(stream:read(20))
    if event.Actor.ID == id then
      local attributes = event.Actor.Attributes
      list[#list + 1] = ("%s %s"):format(event.Action, attributes.signal or attributes.exitCode or "")
    end
  until event.Actor.ID == id and event.Action == last
  self:note(list)
end

function Bench:await_status(id, status)
  while assert(self.engine:container_inspect(id)).State.Status ~= status do self.sleep(0.05) end
end

local cases = {}  -- { title, function }
local function case(title, run) cases[#cases + 1] = { title, run } end

case("a container's life", function(b)
  local stream <close> = b:watch()
  local id = b:create { }
  b:state(id)
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_start(id))
  b:state(id)
  b:note(b.engine:container_stop(id, { t = 10 }))
  b:note(b.engine:container_stop(id, { t = 10 }))
  b:state(id)
  b:note(b.engine:container_remove(id))
  b:note(b.engine:container_inspect(id))
  b:note(b.engine:container_remove(id))
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_stop(id))
  b:note(b.engine:container_kill(id))
  b:events(stream, id, "destroy")
end)

case("an end of its own", function(b)
  local stream <close> = b:watch()
  local id = b:create { run = 0.3, exit = 3 }
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_wait(id))
  b:state(id)
  b:note(b.engine:container_start(id))  -- a second run
  b:await_status(id, "exited")
  b:note(b.engine:container_remove(id))
  b:events(stream, id, "destroy")
end)

case("a program that ignores the signal", function(b)
  local stream <close> = b:watch()
  local id = b:create { ignore = 1 }
  b:note(b.engine:container_start(id))
  b.sleep(0.5)  -- until it has set its traps
  b:note(b.engine:container_stop(id, { t = 1 }))
  b:state(id)
  b:note(b.engine:container_remove(id))
  b:events(stream, id, "destroy")
end)

case("signals", function(b)
  for _, signal in ipairs { "SIGTERM", "SIGINT", "SIGKILL" } do
    local stream <close> = b:watch()
    local id = b:create { }
    b:note(b.engine:container_kill(id, { signal = signal }))
    b:note(b.engine:container_start(id))
    b.sleep(0.5)
    b:note(b.engine:container_kill(id, { signal = signal }))
    b:await_status(id, "exited")
    b:state(id)
    b:note(b.engine:container_kill(id))
    b:note(b.engine:container_remove(id))
    b:events(stream, id, "destroy")
  end
end)

case("the stop signal of the container", function(b)
  local id = b:create({ }, { StopSignal = "SIGQUIT" })
  b:note(b.engine:container_start(id))
  b.sleep(0.5)
  b:note(b.engine:container_stop(id, { t = 5 }))
  b:state(id)
  b:note(b.engine:container_remove(id))
end)

case("removal of a running container", function(b)
  local stream <close> = b:watch()
  local id = b:create { ignore = 1 }
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_remove(id))
  b:note(b.engine:container_remove(id, { force = true, v = true }))
  b:note(b.engine:container_inspect(id))
  b:events(stream, id, "destroy")
end)

case("a name that is taken", function(b)
  local id = b:create { }
  b:note(b.engine:container_create { name = b.names[#b.names], body = { Image = IMAGE, Cmd = { "true" } } })
  b:note(b.engine:container_inspect(b.names[#b.names]).Id == id)
  b:note(b.engine:container_remove(b.names[#b.names]))
end)

case("an image that is not there", function(b)
  b:note(b.engine:container_create { name = b:name(), body = { Image = "likeness-nowhere:1", Cmd = { "true" } } })
  b:note(b.engine:image_inspect "likeness-nowhere:1")
  b:note(b.engine:image_remove "likeness-nowhere:1")
end)

case("a command that is not there", function(b)
  local stream <close> = b:watch()
  local id = b:create { "no-such-command" }
  b:note(b.engine:container_start(id))
  b:state(id)
  b:note(b.engine:container_remove(id, { force = true }))
  b:events(stream, id, "destroy")
end)

local function binding(port)
  return {
    ExposedPorts = { ["80/tcp"] = {} },
    HostConfig = { PortBindings = { ["80/tcp"] = { { HostIp = "0.0.0.0", HostPort = tostring(port) } } } },
  }
end

case("a port that another container has", function(b)
  local port = b:free_port()
  local first, second = b:create({ }, binding(port)), b:create({ }, binding(port))
  b:note(b.engine:container_start(first))
  for _, found in ipairs(b.engine:container_list { filters = { id = { first } } }) do
    if found.Id == first then b:note { found.Ports[1].PrivatePort, found.Ports[1].Type, found.Ports[1].PublicPort == port } end
  end
  local ok, err = b.engine:container_start(second)
  err.message = err.message:gsub(port, "PORT")
  b:note(ok, err)
  local state = b.engine:container_inspect(second).State
  b:note { state.Status, state.ExitCode, (state.Error:gsub(port, "PORT")) }
  b:note(b.engine:container_remove(first, { force = true }))
  b:note(b.engine:container_start(second))
  b:note(b.engine:container_remove(second, { force = true }))
end)

case("a port that another program has", function(b)
  local port, release = b:foreign_port()
  local id = b:create({ }, binding(port))
  local ok, err = b.engine:container_start(id)
  err.message = err.message:gsub(port, "PORT")
  b:note(ok, err)
  release()
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_remove(id, { force = true }))
end)

case("new limits for a running container", function(b)
  local id = b:create({ }, { HostConfig = { Memory = 64 << 20, MemorySwap = 64 << 20, CpuShares = 100 } })
  b:note(b.engine:container_start(id))
  local function limits()
    local host = b.engine:container_inspect(id).HostConfig
    b:note { host.Memory, host.CpuShares, host.MemoryReservation, host.CpuQuota, host.CpusetCpus }
  end
  limits()
  b:note(b.engine:container_update(id, { body = { Memory = 96 << 20, MemorySwap = 96 << 20, CpuShares = 200 } }) ~= nil)
  limits()
  b:note(b.engine:container_remove(id, { force = true }))
  b:note(b.engine:container_update(id, { body = { CpuShares = 300 } }))
end)

case("lists by label and by state", function(b)
  local ids = {
    b:create({ }, { Labels = { ["likeness.a"] = "1", ["likeness.b"] = "x" } }), b:create({ }, { Labels = { ["likeness.a"] = "2" } }),
    b:create({ run = 0.1, exit = 4 }, { Labels = { ["likeness.a"] = "1" } }),
  }
  local function list(options)
    local found = {}
    for i, one in ipairs(assert(b.engine:container_list(options))) do
      found[i] = { one.Names, one.State, one.Status:match "^%a+", one.Labels, one.Image, one.Id == ids[1] }
    end
    b:note(found)
  end
  b:note(b.engine:container_start(ids[1]))
  b:note(b.engine:container_start(ids[3]))
  b:await_status(ids[3], "exited")
  list { filters = { label = { "likeness.a" } } }
  list { all = true, filters = { label = { "likeness.a" } } }
  list { all = true, filters = { label = { "likeness.a=1" } } }
  list { all = true, filters = { label = { "likeness.a=1", "likeness.b" } } }
  list { all = true, filters = { label = { "likeness.a=" } } }
  list { all = true, filters = { label = { "likeness.a" }, status = { "exited", "created" } } }
  list { all = true, filters = { label = { "likeness.none" } } }
  for _, id in ipairs(ids) do b:note(b.engine:container_remove(id, { force = true })) end
end)

case("events since a moment", function(b)
  local stream <close> = b:watch()
  local id = b:create { }
  local event = stream:read(10)
  while event.Actor.ID ~= id do event = stream:read(10) end
  local second = 1000000000
  b:note(b.engine:container_start(id))
  b:note(b.engine:container_stop(id))
  b:note(b.engine:container_remove(id))
  local later <close> = b:watch(("%d.%09d"):format(event.timeNano // second, event.timeNano % second))
  b:events(later, id, "destroy")
end)

case("commands in a container", function(b)
  local id = b:create { }
  b:note(b.engine:exec_create(id, { body = { Cmd = { "true" }, AttachStdout = true } }))
  b:note(b.engine:container_start(id))
  for _, command in ipairs { "true", "false" } do
    local exec = assert(b.engine:exec_create(id, { body = { Cmd = { command }, AttachStdout = true, AttachStderr = true } }))
    local output <close> = assert(b.engine:exec_start(exec.Id, { body = { Detach = false } }))
    b:note { output:read() }
    local found = b.engine:exec_inspect(exec.Id)
    b:note { found.Running, found.ExitCode }
  end
  b:note(b.engine:container_remove(id, { force = true }))
  b:note(b.engine:exec_create(id, { body = { Cmd = { "true" } } }))
end)

case("a health check of the image", function(b)
  local stream <close> = b:watch()
  local id = b:create({ }, { Image = CHECKED })
  b:state(id)
  b:note(b.engine:container_start(id))
  b:state(id)
  b:events(stream, id, "health_status: healthy")
  b:state(id)
  for _, found in ipairs(b.engine:container_list {}) do
    if found.Id == id then b:note { found.State, found.Status:match "%((.-)%)" } end
  end
  b:note(b.engine:container_remove(id, { force = true }))
end)

case("an image in use", function(b)
  local ref = b:own_image()
  local id = b:create({ }, { Image = ref })
  b:note(b.engine:container_inspect(id).Image == b.engine:image_inspect(ref).Id)
  b:note(b.engine:image_remove(ref))
  b:note(b.engine:container_start(id))
  b:note(b.engine:image_remove(ref))
  b:note(b.engine:container_remove(id, { force = true }))
  local removed = b.engine:image_remove(ref)
  b:note { removed[1].Untagged ~= nil }
  b:note(b.engine:image_inspect(ref))
end)

-- The end of a pull: an error at once, or its last line.
local function pull(b, name, tag)
  local stream, err = b.engine:image_pull { fromImage = name, tag = tag }
  if not stream then return b:note(nil, err) end
  local lines <close> = stream
  local last
  for line in lines do last = line end
  b:note { last.error, last.status }
end

case("pulls", function(b)
  local registry = b:registry()
  pull(b, registry .. "/likeness-nowhere", "1")
  pull(b, registry .. "/likeness-pulled", "none")
  pull(b, registry .. "/likeness-pulled", "1")
  b:note(b.engine:image_inspect(registry .. "/" .. PULLED).RepoTags)
  b:note(#b.engine:image_remove(registry .. "/" .. PULLED) > 0)
  b:close_registry()
  local _, err = b.engine:image_pull { fromImage = registry .. "/likeness-pulled", tag = "1" }
  b:note { err.kind, err.status, err.message:match "connection refused" }
end)

case("two removals at once", function(b)
  local id = b:create { }
  b:note(b.engine:container_start(id))
  local answers = {}
  for i = 1, 2 do
    answers[i] = b.spawn(function()
      local ok, err = b.engine:container_remove(id, { force = true })
      return not ok and { err.status, (err.message:gsub("of container %S+", "of container ID")) } or "gone"
    end)
  end
  for i = 1, 2 do answers[i] = answers[i]:await() end
  table.sort(answers, function(x) return x == "gone" end)
  b:note(answers[1])
  b:note(answers[2] ~= "gone" and (answers[2][1] == 404 or answers[2][2] == "removal of container ID is already in progress"))
end)

for _, with_containers in ipairs { false, true } do
  case(("an engine that dies%s"):format(with_containers and ", and leaves its containers" or ""), function(b)
    local engine <close> = b:restartable(with_containers)
    local ids = { b:create { }, b:create { run = 0.1, exit = 5 }, b:create { } }
    b:note(b.engine:container_start(ids[1]))
    b:note(b.engine:container_start(ids[2]))
    b:await_status(ids[2], "exited")
    local stream <close> = b:watch()
    engine.crash()
    local item, err = stream:read(20)
    b:note { item == nil and (err == nil or err.kind) }
    local _, refused = b.engine:system_ping()
    b:note { refused.kind }
    engine.recover()
    for _, id in ipairs(ids) do b:state(id) end
    for _, id in ipairs(ids) do b:note(b.engine:container_remove(id, { force = true })) end
  end)
end

-- ---- the two benches ----------------------------------------------------------------------------

local function bench(fields)
  fields.names, fields.seen = {}, {}
  return setmetatable(fields, Bench)
end

describe("the simulated engine", function()
  local own, registry

  setup(function()
    own, registry = engines.start(), engines.start_registry()
    engines.image(own, IMAGE)
    engines.image(own, CHECKED, { changes = { 'HEALTHCHECK --interval=1s --timeout=5s CMD ["true"]' } })
    local ref = registry.address .. "/" .. PULLED
    engines.image(own, ref)
    local engine = assert(dockrun.connect { endpoint = own.endpoint })
    for line in assert(engine:image_push(registry.address .. "/likeness-pulled", { tag = "1" })) do assert(not line.error, line.error) end
    assert(engine:image_remove(ref))
  end)
  teardown(function()
    own:stop()
    registry:stop()
  end)

  -- A port of this host on which no program listens; with `keep`, one does until the function is called.
  local function port_of_host(keep)
    local socket = uv.new_tcp()
    assert(socket:bind("0.0.0.0", 0))
    assert(socket:listen(1, function() end))
    local port = socket:getsockname().port
    local function release()
      socket:close()
      dockrun.sleep(0)
    end
    if not keep then release() end
    return port, release
  end

  local function on_real(run)
    local b = bench { engine = assert(dockrun.connect { endpoint = own.endpoint }), sleep = dockrun.sleep, spawn = dockrun.spawn }
    function b.free_port() return (port_of_host()) end
    function b.foreign_port() return port_of_host(true) end
    function b.own_image()
      engines.image(own, "likeness-own:1", { changes = { "CMD [\"own\"]" } })
      return "likeness-own:1"
    end
    function b.registry() return registry.address end
    function b.close_registry() registry:stop() end
    function b:restartable(with_containers)
      local e = engines.start { args = with_containers and { "--live-restore" } or {} }
      engines.image(e, IMAGE)
      self.engine = assert(dockrun.connect { endpoint = e.endpoint })
      return setmetatable({ crash = function() e:kill() end, recover = function() e:restart() end }, {
        __close = function() e:stop() end,
      })
    end
    local _ <close> = setmetatable({}, { __close = function()
      for _, name in ipairs(b.names) do b.engine:container_remove(name, { force = true }) end
    end })
    run(b)
    return plain(b.seen, b.names)
  end

  local function on_simulated(run)
    math.randomseed(1)
    local sched = schedulers.new(math.random)
    local sim = sim_engines.new(sched)
    sim.images[IMAGE], sim.images[CHECKED] = { Id = "sha256:" .. ("1"):rep(64) }, { Id = "sha256:" .. ("2"):rep(64), checked = true }
    sim.registry["127.0.0.1:5000/" .. PULLED] = { Id = "sha256:" .. ("3"):rep(64) }
    local process = { fibers = {}, tick = function() end, point = function() end }
    local client = clients.new(sched, sim, faults.new(math.random, 0), process).connect { endpoint = "unix:///sim.sock" }
    local b = bench {
      engine = client, sleep = function(seconds) sched:wait(seconds) end, spawn = function(...) return sched:spawn(process, ...) end,
    }
    function b.free_port() return 20000 end
    function b.foreign_port()
      sim.foreign[20000] = true
      return 20000, function() sim.foreign[20000] = nil end
    end
    function b.own_image()
      sim.images["likeness-own:1"] = { Id = "sha256:" .. ("4"):rep(64) }
      return "likeness-own:1"
    end
    function b.registry() return "127.0.0.1:5000" end
    function b.close_registry() sim.registry_down = true end
    function b.restartable(_, with_containers)
      return setmetatable({ crash = function() sim:crash() end, recover = function() sim:recover(with_containers) end }, {
        __close = function() end,
      })
    end
    local fiber = sched:spawn(process, run, b)
    assert.equal("done", sched:run(function() return fiber:ended() end, 600))
    if fiber.state == "failed" then error(fiber.bug or fiber.results[1], 0) end
    return plain(b.seen, b.names)
  end

  for _, one in ipairs(cases) do
    it("answers as a real one does: " .. one[1], function() assert.same(on_real(one[2]), on_simulated(one[2])) end)
  end
end)
