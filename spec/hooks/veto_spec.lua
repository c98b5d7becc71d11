-- What a veto does at each transition, what hooks may change, and what an invalid change does.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"

describe("a hook that", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  -- Runs a job to its end under hooks of the host. Gives the events by name. `meanwhile`: true to stop the job once it
  -- runs (and has made /local/ready, if it does that), or the event at which its gate "end" opens.
  local function run(hooks, fields, meanwhile)
    local agent <close> = agents.new(endpoint, hooks)
    local job = agents.job(fields or {})
    agent:submit(job)
    local task = agent.tasks[1]
    if meanwhile == true then
      while not task.watching do dockrun.sleep(0.02) end
      if fields.command:find "/local/ready" then jobs.await_ready(task.alloc_id) end
      agent:stop_job(nil, "the spec")
    elseif meanwhile then
      eventually(meanwhile, function() return agents.names(agent.told):find(meanwhile, 1, true) end)
      jobs.open(task.alloc_id, "end")
    end
    local ok = agent:wait()
    assert.same({}, jobs.containers(engine, job.name))
    local by = {}
    for _, event in ipairs(agent.told) do by[event.event] = event end
    return by, ok, agent
  end

  local function veto() return false, "not on a Friday" end

  for name, before in pairs {
    received = "setup", setup = "setup", ports = "setup", pull = "pulled", pulled = "created", create = "created", prestart = "created",
    created = "started",
  } do
    it(("vetoes '%s' fails the task, and leaves nothing"):format(name), function()
      local by, ok = run { [name] = veto }
      assert.is_false(ok)
      assert.equal(("vetoed by hook '%s' (host): not on a Friday"):format(name), by.failed.message)
      assert.equal(by.failed.message, by.hook_failed.message)
      assert.is_nil(by[before])
      assert.equal(by.created, by.removed and by.created)
    end)
  end

  it("vetoes 'restart' ends the task", function()
    local by, ok = run({ restart = veto }, { command = "exit 4", restart = [[attempts = 3, delay = 0]] })
    assert.is_false(ok)
    assert.matches("not on a Friday", by.not_restarting.message)
    assert.equal(4, by.exited.exit_code)
    assert.matches("^exit code 4; .*not on a Friday", by.failed.message)
  end)

  for _, name in ipairs { "started", "healthy", "exited", "cleanup" } do
    it(("vetoes '%s' is reported, and changes nothing"):format(name), function()
      local by, ok = run({ [name] = veto }, { command = jobs.gate "end",
        task = [[check = { type = "lua", interval = "50ms", run = function() return true end },]] }, "healthy")
      assert.is_true(ok)
      assert.equal(("vetoed by hook '%s' (host): not on a Friday"):format(name), by.hook_failed.message)
      assert.same({ 0, true }, { by.exited.exit_code, by.removed ~= nil })
      assert.is_nil(by.failed)
    end)
  end

  for _, name in ipairs { "kill", "killed", "stopped" } do
    it(("vetoes '%s' is reported, and changes nothing"):format(name), function()
      local by, ok = run({ [name] = veto }, { command = "trap 'exit 3' TERM; while :; do sleep 0.1; done" }, true)
      assert.is_true(ok)
      assert.equal(("vetoed by hook '%s' (host): not on a Friday"):format(name), by.hook_failed.message)
      assert.same({ "the spec", true }, { by.killing.message, by.exited ~= nil })
    end)
  end

  it("vetoes 'unhealthy', 'oom' or 'failed' is reported, and changes nothing", function()
    local by = run({ unhealthy = veto, oom = veto, failed = veto }, {
      command = ("(x=a; while :; do x=$x$x; done); %s; exit 5"):format(jobs.gate "end"), resources = "memory = 8",
      task = [[check = { type = "lua", interval = "50ms", run = function() return false end },]],
    }, "oom")
    assert.equal(5, by.exited.exit_code)
    assert.equal("vetoed by hook 'failed' (host): not on a Friday", by.hook_failed.message)
    assert.equal("exit code 5; the kernel killed a process of it: out of memory", by.failed.message)
  end)

  it("vetoes without a reason is quoted so", function()
    local by = run { create = function() return false end }
    assert.equal("vetoed by hook 'create' (host): no reason given", by.failed.message)
  end)

  it("vetoes for a reason that is no text is quoted as it prints", function()
    assert.equal("vetoed by hook 'create' (host): 42", (run { create = function() return false, 42 end }).failed.message)
    local odd = setmetatable({}, { __tostring = function() error "never" end })
    assert.matches("cannot be shown", (run { create = function() return false, odd end }).failed.message)
  end)

  it("returns anything but false agrees", function()
    for _, answer in ipairs { 0, "", {}, true } do
      assert.is_true(select(2, run { create = function() return answer end }))
    end
  end)

  it("vetoes ends the series: the hooks after it do not run", function()
    local asked = false
    local agent <close> = agents.new(endpoint, { create = veto })
    local job = agents.job {}
    job.groups[1].tasks[1].hooks = { create = function() asked = true end }
    agent:submit(job)
    agent:wait()
    assert.is_false(asked)
  end)

  -- ---- changes ----------------------------------------------------------------------------------

  it("changes its task's text changes no other of its group, nor what `plan` compares", function()
    local agent <close> = agents.new(endpoint, {
      received = function(_, spec) spec.env.FROM = "received" end,
      setup = function(task, spec)
        spec.env.NUMBER = "n" .. task.alloc.index
        spec.resources.memory = 16
      end,
    })
    local job = agents.job { group = "count = 2,", command = "sleep 600" }
    agent:submit(job)
    for _, task in ipairs(agent.tasks) do
      while not task.watching do dockrun.sleep(0.02) end
      local found = assert(engine:container_inspect(task.container_id))
      local env = table.concat(found.Config.Env, "\n")
      assert.matches("FROM=received", env, 1, true)
      assert.matches("NUMBER=n" .. task.context.alloc.index, env, 1, true)
      assert.matches("NOMAD_MEMORY_LIMIT=16", env, 1, true)
      assert.equal(16 * 1024 * 1024, found.HostConfig.Memory)
      local definition = dockrun.json.decode(found.Config.Labels["dockrun.definition"])
      assert.same({ {}, 32 }, { definition.env, definition.resources.memory })
    end
    assert.is_nil(job.groups[1].tasks[1].env.FROM)
    agent:stop_job()
  end)

  it("chooses other ports has them, and no others", function()
    local chosen, given
    local agent <close> = agents.new(endpoint, {
      ports = function(_, list)
        given = list[1].host_port
        chosen = given == 20100 and 20101 or 20100
        list[1].host_port, list[1].container_port = chosen, chosen
      end,
    })
    local job = agents.job { command = "sleep 600", resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] }
    agent:submit(job)
    local task = agent.tasks[1]
    while not task.watching do dockrun.sleep(0.02) end
    local found = assert(engine:container_inspect(task.container_id))
    assert.equal(tostring(chosen), found.NetworkSettings.Ports[chosen .. "/tcp"][1].HostPort)
    assert.matches("NOMAD_PORT_web=" .. chosen, table.concat(found.Config.Env, "\n"), 1, true)
    assert.is_true((agent.ports:reserve(agent.bind_ip, given, "the spec")), "the first is free again")
    agent.ports:release(agent.bind_ip, given)
    agent:stop_job()
    assert.is_true((agent.ports:reserve(agent.bind_ip, chosen, "the spec")), "the second is given back")
    agent.ports:release(agent.bind_ip, chosen)
  end)

  it("changes a port of the host's own network has every variable of it changed", function()
    local chosen = 20200 + math.random(0, 99)
    local agent <close> = agents.new(endpoint, { ports = function(_, list) list[1].host_port, list[1].ip = chosen, "192.0.2.77" end })
    agent:submit(agents.job { command = "sleep 600", config = [[network_mode = "host"]],
      resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] })
    local task = agent.tasks[1]
    while not task.watching do dockrun.sleep(0.02) end
    local env = "\n" .. table.concat(assert(engine:container_inspect(task.container_id)).Config.Env, "\n") .. "\n"
    for _, line in ipairs {
      "NOMAD_PORT_web=" .. chosen, "NOMAD_HOST_PORT_WEB=" .. chosen, "NOMAD_IP_web=192.0.2.77", "NOMAD_ADDR_WEB=192.0.2.77:" .. chosen,
    } do assert.matches("\n" .. line .. "\n", env, 1, true) end
    agent:stop_job()
  end)

  it("changes what a task's hooks and attempts begin with counts from there on", function()
    local asked, seen = {}, nil
    local agent <close> = agents.new(endpoint, {
      received = function(_, task)
        task.meta.tier = "gold"
        task.restart = { attempts = 1, delay = "20ms", interval = "1m", mode = "fail" }
      end,
      pull = function(_, wanted)
        asked[#asked + 1] = wanted.image
        wanted.image = wanted.image .. ":1"
      end,
      create = function(task, body) seen, body.StopSignal = task.meta.tier, "SIGQUIT" end,
      kill = function(_, how) asked[#asked + 1] = how.signal end,
    })
    agent:submit(agents.job { image = "busybox", command = "test -e /alloc/second || { touch /alloc/second; exit 1; }; exec sleep 600" })
    local task = agent.tasks[1]
    while not (task.watching and #asked == 2) do dockrun.sleep(0.02) end
    agent:stop_job()
    assert.same({ "busybox", "busybox", "SIGQUIT" }, asked)
    assert.equal("gold", seen)
  end)

  it("chooses a port that is in use fails its task", function()
    local uv = require "luv"
    local taken = uv.new_tcp()
    assert(taken:bind("0.0.0.0", 0))
    assert(taken:listen(1, function() end))
    local port = taken:getsockname().port
    local by, ok = run({ ports = function(_, list) list[1].host_port = port end },
      { resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] })
    taken:close()
    assert.is_false(ok)
    assert.matches(("port %d "):format(port), by.failed.message, 1, true)
  end)

  it("names another image at 'pull' has that one", function()
    local pulled
    local by, ok = run({
      pull = function(_, pull) pull.image = "busybox:1" end, pulled = function(_, image) pulled = image.reference.full end,
    }, { image = "127.0.0.1:9/not/there:1" })
    assert.is_true(ok)
    assert.same({ "busybox:1", "busybox:1" }, { pulled, by.pulled.message })
  end)

  it("takes dockrun's own labels away does not", function()
    local labels
    run({
      prestart = function(_, body) body.Labels = { mine = "yes" } end,
      created = function(_, subject) labels = engine:container_inspect(subject.id).Config.Labels end,
    })
    assert.equal("yes", labels.mine)
    assert.is_string(labels["dockrun.alloc"])
  end)

  it("changes how a task is killed decides the signal and the time", function()
    local by = run({ kill = function(_, how) how.signal, how.timeout = "SIGUSR1", 120 end },
      { command = "trap 'exit 8' USR1; trap '' TERM; touch /local/ready; while :; do sleep 0.1; done" }, true)
    assert.equal(8, by.exited.exit_code)
    by = run({ kill = function(_, how) how.signal, how.timeout = "SIGUSR1", 0.3 end },
      { command = "trap '' USR1; while :; do sleep 0.1; done" }, true)
    assert.same({ 137, 9 }, { by.exited.exit_code, by.exited.signal })
  end)

  it("names a signal that there is not kills all the same", function()
    local by = run({ kill = function(_, how) how.signal = "SIGNONESUCH" end },
      { command = "trap '' TERM; while :; do sleep 0.1; done", task = [[kill_timeout = "1h",]] }, true)
    assert.equal(137, by.exited.exit_code)
    assert.matches("cannot stop it", by.failed.message)
  end)

  for _, case in ipairs {
    { "setup", function(_, spec) spec.config.imgae = "x" end, "unknown key 'imgae'; did you mean 'image'" },
    { "received", function(_, spec) spec.resources.memory = -1 end, "resources.memory" },
    { "received", function(_, spec) spec.config = nil end, "config.image: is required" },
    { "setup", function(_, spec) spec.kill_timeout = {} end, "kill_timeout" },
    { "setup", function(_, spec) setmetatable(spec, { __index = function() return 1 end }) end, "a table with a metatable" },
    { "ports", function(_, list) list[1].host_port = 0 end, "host_port must be a port, got 0" },
    { "ports", function(_, list) list[1].protocols = { "sctp" } end, "protocols must be a list of tcp and udp" },
    { "ports", function(_, list) list[1] = "80" end, "mapping 1 must be a table, got 80" },
    { "pull", function(_, pull) pull.image = nil end, "image must be an image reference, got nil" },
    { "pulled", function(_, image) image.reference = {} end, "reference must be" },
    { "create", function(_, body) body.Labels = "none" end,
      "hook 'create' (host) returned an invalid request: Labels must be a table, got none" },
    { "create", function(_, body) body.Labels.f = print end, "invalid request: Labels.f must be JSON, got a function" },
    { "prestart", function(_, body) body.Env = body end, "is nested more than" },
    { "prestart", function(_, body) body.Env[{}] = 1 end, "a table as a key" },
    { "create", function(_, body) body.HostConfig.Memory = "much" end, "HostConfig.Memory" },
  } do
    local name, hook, expected = table.unpack(case)
    it(("makes the subject of '%s' invalid fails its task: %s"):format(name, expected), function()
      local by, ok = run({ [name] = hook }, { resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] })
      assert.is_false(ok)
      assert.matches(expected, by.failed.message, 1, true)
      assert.falsy(by.failed.message:find "attempt to")
    end)
  end

  for _, case in ipairs {
    { "restart", function(_, decision) decision.delay = "soon" end, "delay must be a number of seconds, got soon", "exit 1" },
    { "restart", function(_, decision) decision.delay = 0 / 0 end, "delay must be a number of seconds", "exit 1" },
    { "exited", function(_, result) result.exit_code = {} end, "exit_code must be an integer, got a table", "true" },
  } do
    local name, hook, expected, command = table.unpack(case)
    it(("makes the subject of '%s' invalid is reported: %s"):format(name, expected), function()
      local by = run({ [name] = hook }, { command = command, restart = [[attempts = 1, delay = 0]] })
      assert.matches(expected, by.hook_failed.message, 1, true)
      assert.is_not_nil(by.removed)
    end)
  end

  it("makes the subject of 'kill' invalid is reported, and the task is stopped as its job says", function()
    local by = run({ kill = function(_, how) how.signal, how.timeout = 15, "long" end },
      { command = "trap 'exit 6' TERM; touch /local/ready; while :; do sleep 0.1; done", task = [[kill_timeout = "2m",]] }, true)
    assert.matches("signal must be a signal's name, got 15", by.hook_failed.message, 1, true)
    assert.equal(6, by.exited.exit_code)
  end)
end)
