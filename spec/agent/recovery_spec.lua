-- A dockrun that is killed, and the next one: on a real engine. An operator's hook is where it is killed, so that each
-- place on a task's way has its turn.
local commands = require "spec.commands"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local hooks = require "dockrun.hooks"
local jobs = require "spec.jobs"
local states = require "spec.states"
local store = require "dockrun.store"
local uv = require "luv"

describe("a dockrun that was killed", function()
  local engine, endpoint, name

  setup(function() engine, endpoint = engines.ready() end)

  before_each(function()
    states.begin()
    name = jobs.unique "killed"
  end)
  after_each(function()
    commands.run(endpoint, "stop", "--purge", name)
    local left = commands.remove(engine, name)
    states.finish()
    assert.equal(0, left)
  end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end

  local function events_of(text)
    local list, by = {}, {}
    for line in text:gmatch "([^\n]+)\n" do
      local event = dockrun.json.decode(line)
      list[#list + 1], by[event.event] = event, event
    end
    return by, list
  end

  local function write(text)
    local path, file = jobs.write(text)
    return path, file
  end

  -- A hook file whose hook kills its own dockrun, the first time that it runs.
  local function killer(hook)
    return write(([[
      return { %s = function()
        local mark = %q
        if io.open(mark) then return end
        io.open(mark, "w"):close()
        require("luv").kill(require("luv").os_getpid(), "sigkill")
      end }]]):format(hook, states.dir .. "/mark"))
  end

  -- What of the job is left, of whatever kind.
  local function left_over()
    local left = {}
    for _, container in ipairs(jobs.containers(engine, name)) do left[#left + 1] = "container " .. container.Id end
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    for _, lease in ipairs(assert(state:leases())) do left[#left + 1] = "lease of port " .. lease.port end
    for _, intent in ipairs(assert(state:intents())) do left[#left + 1] = "intent " .. intent.action end
    local entries = uv.fs_scandir(states.dir .. "/alloc")
    while entries do
      local entry = uv.fs_scandir_next(entries)
      if not entry then break end
      left[#left + 1] = "directory " .. entry
    end
    return left
  end

  -- Those that a task which ends by itself comes by.
  local on_the_way = {}
  for _, hook in ipairs(hooks.names) do on_the_way[hook] = true end
  for _, hook in ipairs { "healthy", "unhealthy", "oom", "kill", "killed", "stopped", "failed" } do on_the_way[hook] = nil end

  for _, hook in ipairs(hooks.names) do
    if on_the_way[hook] then
      it(("at '%s' loses nothing, doubles nothing and leaves nothing"):format(hook), function()
        local path, file = write(jobs.text {
          name = name, image = "busybox:1", resources = "memory = 32, network = { dynamic_ports = { \"web\" } }",
          restart = [[attempts = 1, delay = "100ms", interval = "1h"]],
          command = "echo run >>/alloc/data/runs; test $(wc -l </alloc/data/runs) = 2 && exit 0; exit 3",
        })
        local _ <close> = file
        local own_hooks, hook_file = killer(hook)
        local _ <close> = hook_file
        local first = dockrun_with("run", "--json", "--hooks", own_hooks, path)
        assert.equal("SIGKILL", first.signal, first.stderr)
        local before = jobs.containers(engine, name)
        assert.is_true(#before <= 1)

        local second = dockrun_with("run", "--json", "--hooks", own_hooks, path)
        local by, list = events_of(second.stdout)
        -- Failed once with 3, began again, and then ended well: counted over both processes.
        assert.equal(0, second.code, first.stdout .. second.stdout .. second.stderr)
        local runs = {}
        for _, event in ipairs(select(2, events_of(first.stdout))) do list[#list + 1] = event end
        for _, event in ipairs(list) do
          if event.event == "started" or event.event == "reattached" then runs[event.container_id] = true end
        end
        local count = 0
        for _ in pairs(runs) do count = count + 1 end
        assert.is_true(count <= 2, first.stdout .. second.stdout)
        assert.is_true(by.exited == nil or by.exited.exit_code == 0)
        assert.same({}, left_over())
        local told = assert(dockrun.json.decode(dockrun_with("status", "--json", name).stdout)).jobs[1].tasks[1]
        assert.same({ "dead", 0, 1 }, { told.state, told.exit_code, told.restarts })
      end)
    end
  end

  for _, hook in ipairs { "kill", "killed", "stopped" } do
    it(("while it stopped a job, at '%s', is followed by one that finishes the stop"):format(hook), function()
      local path, file = write(jobs.text { name = name, image = "busybox:1", command = "trap 'exit 4' TERM; while :; do sleep 0.1; done" })
      local _ <close> = file
      local own_hooks, hook_file = killer(hook)
      local _ <close> = hook_file
      local child <close> = commands.start(endpoint, "run", "--json", "--hooks", own_hooks, path)
      child:wait_for '"event":"started"'
      child:kill "SIGINT"
      assert.equal("SIGKILL", child:wait().signal)
      local stopped = dockrun_with("stop", "--json", name)
      assert.equal(0, stopped.code, stopped.stderr)
      assert.same({}, left_over())
    end)
  end

  it("is followed by one that begins anew what was being stopped", function()
    local path, file = write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600", task = [[kill_timeout = "1s",]] })
    local _ <close> = file
    local own_hooks, hook_file = killer "kill"
    local _ <close> = hook_file
    local child <close> = commands.start(endpoint, "run", "--json", "--hooks", own_hooks, path)
    child:wait_for '"event":"started"'
    local old = jobs.containers(engine, name)[1].Id
    child:kill "SIGINT"
    assert.equal("SIGKILL", child:wait().signal)
    assert.equal(0, dockrun_with("run", "-d", path).code)
    local now = jobs.containers(engine, name)
    assert.equal(1, #now)
    assert.not_equal(old, now[1].Id)
    assert.equal("running", now[1].State)
  end)

  it("has its restarts counted on, and their delay kept", function()
    local path, file = write(jobs.text {
      name = name, image = "busybox:1", command = "exit 3", restart = [[attempts = 2, delay = "300ms", interval = "1h", mode = "fail"]],
    })
    local _ <close> = file
    local restarts = 0
    for _ = 1, 2 do  -- killed at each restart but the last
      local own_hooks, hook_file = killer "exited"
      local _ <close> = hook_file
      os.remove(states.dir .. "/mark")
      local result = dockrun_with("run", "--json", "--hooks", own_hooks, path)
      for _, event in ipairs(select(2, events_of(result.stdout))) do restarts = restarts + (event.event == "restarting" and 1 or 0) end
      assert.equal("SIGKILL", result.signal)
    end
    local last = dockrun_with("run", "--json", path)
    for _, event in ipairs(select(2, events_of(last.stdout))) do restarts = restarts + (event.event == "restarting" and 1 or 0) end
    assert.equal(1, last.code)
    assert.equal(2, restarts)
    assert.matches("more than 2 restarts", last.stdout)
    assert.same({}, left_over())
  end)

  -- Runs a task that fails once and is killed, dockrun and all, while it waits for its restart; then another job takes its
  -- port. What the next run of the first job says, the port, and a scope that ends the other job.
  local function lose_port(network)
    local path, file = write(jobs.text {
      name = name, image = "busybox:1", resources = "memory = 32, network = { " .. network .. " }",
      restart = [[attempts = 1, delay = "300ms", interval = "1h"]],
      command = "echo run >>/alloc/data/runs; test $(wc -l </alloc/data/runs) = 2 && exit 0; exit 3",
    })
    local _ <close> = file
    local child <close> = commands.start(endpoint, "run", "--json", path)
    child:wait_for '"event":"restarting"'
    child:kill "SIGKILL"
    child:wait()
    local port = events_of(child.stdout).started.ports[1].host_port
    local other, other_file = write(jobs.text {
      name = name .. "-other", image = "busybox:1", command = "exec sleep 600",
      resources = ("memory = 32, network = { reserved_ports = { %d } }"):format(port),
    })
    local _ <close> = other_file
    local taken = dockrun_with("run", "-d", other)
    assert.equal(0, taken.code, taken.stderr)
    return dockrun_with("run", "--json", path), port, setmetatable({}, { __close = function()
      dockrun_with("stop", name .. "-other")
    end })
  end

  it("while a task waited for its restart is followed by one that takes another port for it, if it must", function()
    local result, port, _ <close> = lose_port [[dynamic_ports = { "web" }]]
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.not_equal(port, events_of(result.stdout).started.ports[1].host_port)
  end)

  it("while a task waited for its restart is followed by one that names the holder of its fixed port", function()
    local fixed = 30000 + math.random(0, 999)
    local result, port, _ <close> = lose_port(("reserved_ports = { %d }"):format(fixed))
    assert.equal(fixed, port)
    assert.equal(1, result.code)
    local failed = events_of(result.stdout).failed.message
    assert.matches(("port %d is in use by task 'task' of job '%s-other'"):format(port, name), failed, 1, true)
  end)

  it("is followed by one that goes on with what is pending, though a later try at the same place failed", function()
    local path, file = write(jobs.text { name = name, image = "busybox:1", command = "true" })
    local _ <close> = file
    local own_hooks, hook_file = killer "prestart"
    local _ <close> = hook_file
    assert.equal("SIGKILL", dockrun_with("run", "--hooks", own_hooks, path).signal)
    states.sql [[
      CREATE TEMP TABLE a AS SELECT * FROM allocations;
      UPDATE a SET id = '00000000-0000-4000-8000-000000000000', meta = json_set(meta, '$.created', json_extract(meta, '$.created') + 1);
      INSERT INTO allocations SELECT * FROM a;
      CREATE TEMP TABLE t AS SELECT * FROM tasks;
      UPDATE t SET alloc = '00000000-0000-4000-8000-000000000000', state = 'failed', detail = json_remove(detail, '$.intent');
      INSERT INTO tasks SELECT * FROM t]]
    local result = dockrun_with("run", "--json", path)
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.truthy(events_of(result.stdout).started)
    assert.same({}, left_over())
  end)

  it("is followed by one that does not do again what was done", function()
    local path, file = write(([[
      return job %q { type = "batch", group "g" { count = 2, restart = { attempts = 0 },
        task "t" { config = { image = "busybox:1", command = "sh", args = { "-c",
          "echo run; test $NOMAD_ALLOC_INDEX = 0 && exit 5; exec sleep 600" } }, kill_timeout = "1s", resources = { memory = 32 } } } }
      ]]):format(name))
    local _ <close> = file
    local child <close> = commands.start(endpoint, "run", "--json", path)
    child:wait_for '"event":"started".*"event":"started"'
    child:wait_for '"event":"removed"'
    do
      local state <close> = assert(store.open(states.dir, { readonly = true }))
      repeat dockrun.sleep(0.02) until assert(state:tasks { job = name })[1].state == "failed"
    end
    child:kill "SIGKILL"
    child:wait()
    local second <close> = commands.start(endpoint, "run", "--json", path)
    second:wait_for '"event":"reattached"'
    assert(engine:container_kill(jobs.containers(engine, name)[1].Id))
    assert.equal(1, second:wait().code)
    assert.matches(("job '%s' failed: g[0].t: exit code 5; "):format(name), second.stderr, 1, true)
    assert.is_nil(second.stdout:find '"event":"started"')
    local told = assert(dockrun.json.decode(dockrun_with("status", "--json", name).stdout)).jobs[1]
    assert.equal("failed", told.status)
    assert.same({ 5, 137 }, { told.tasks[1].exit_code, told.tasks[2].exit_code })
    assert.same({}, left_over())
  end)

  it("has its tasks told by `status`, and their ends by `events`", function()
    local path, file = write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = file
    local child <close> = commands.start(endpoint, "run", "--json", path)
    child:wait_for '"event":"started"'
    local function state() return assert(dockrun.json.decode(dockrun_with("status", "--json").stdout)).jobs[1].tasks[1].state end
    assert.equal("running", state())  -- while it is watched
    child:kill "SIGKILL"
    child:wait()
    assert.equal("running", state())  -- and while it is not
    local told = dockrun_with("events", "--json", name)
    local by = events_of(told.stdout)
    assert.truthy(by.received and by.created and by.started)
    local following <close> = commands.start(endpoint, "events", "-f", "--json", "--tail", "1", name)
    following:wait_for '"event":"started"'
    assert.equal(0, dockrun_with("stop", name).code)
    following:wait_for '"event":"removed"'
  end)

  it("leaves a job alone that cannot be read from a damaged state, and says what to do", function()
    local path, file = write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = file
    assert.equal(0, dockrun_with("run", "-d", path).code)
    local damaged = assert(io.open(states.path, "r+b"))
    damaged:seek("set", 100)
    damaged:write(("\255"):rep(4000))
    damaged:close()
    for _, suffix in ipairs { "-wal", "-shm" } do os.remove(states.path .. suffix) end
    for _, command in ipairs { { "run", path }, { "stop", name }, { "gc" } } do
      local result = dockrun_with(table.unpack(command))
      assert.equal(1, result.code, result.stderr)
      assert.matches("dockrun did not change it; .*move it away", result.stderr)
    end
    assert.equal("running", jobs.containers(engine, name)[1].State)
    assert.matches("unowned", dockrun_with("status", name).stdout)  -- by its containers alone
    for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(states.path .. suffix) end
    assert.equal(0, dockrun_with("adopt", "--yes", name).code)  -- for after_each
  end)
end)
