-- Every hook from every source on a real engine: their order, and their subjects.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local hooks = require "dockrun.hooks"
local jobs = require "spec.jobs"

describe("each of the nineteen hooks", function()
  local engine, endpoint
  local calls, subjects = {}, {}  -- by hook: its places in order; the subject of each

  local function note(place, name)
    return function(task, subject)
      calls[name] = calls[name] or {}
      table.insert(calls[name], place)
      subjects[name] = subjects[name] or { task = task, subject = subject }
    end
  end

  local function all(place)
    local list = {}
    for _, name in ipairs(hooks.names) do list[name] = note(place, name) end
    return list
  end

  -- One life that passes by every hook: its memory runs out, it is healthy, then not, begins anew, and is stopped; and
  -- another that fails.
  setup(function()
    engine, endpoint = engines.ready()
    _G.dockrun_spec_note = note
    local path, file = jobs.write [[
      local hooks = {}
      for _, name in ipairs(require("dockrun.hooks").names) do hooks[name] = dockrun_spec_note("operator", name) end
      return hooks]]
    local _ <close> = file
    local agent <close> = agents.new(endpoint, all "host", { hooks = path })
    local job = agents.job {
      command = "test -e /local/again && exec sleep 600; touch /local/again; (x=a; while :; do x=$x$x; done); sleep 600",
      restart = [[attempts = 1, delay = "50ms"]],
      resources = [[memory = 8, network = { dynamic_ports = { "web" } }]],
      task = [[check = { type = "lua", interval = "50ms", run = function() return true end, check_restart = { limit = 1, grace = 0 } },]],
    }
    local group = job.groups[1]
    job.hooks, group.hooks, group.tasks[1].hooks = all "job", all "group", all "task"
    local looks = 0
    group.tasks[1].checks[1].run = function()
      looks = looks + 1
      if looks == 1 then while not calls.oom do dockrun.sleep(0.02) end end
      return looks ~= 2, "the second look"
    end
    group.tasks[1].checks[1].timeout = 20
    agent:submit(job)
    while not (calls.restart and agent.tasks[1].state == "healthy") do dockrun.sleep(0.05) end
    agent:stop_job(nil, "the spec")
    agent:wait()
    local failing = agents.job { image = "127.0.0.1:9/none:1" }
    failing.hooks, failing.groups[1].hooks, failing.groups[1].tasks[1].hooks = all "job", all "group", all "task"
    agent:submit(failing)
    agent:wait()
    assert.same({}, jobs.containers(engine, job.name))
  end)

  teardown(function() _G.dockrun_spec_note = nil end)

  for _, name in ipairs(hooks.names) do
    it(("'%s' runs for the host, the operator, the job, the group and the task, in this order"):format(name), function()
      local places = calls[name]
      assert.is_table(places, "it never ran")
      assert.equal(0, #places % 5)
      for i = 1, #places, 5 do
        assert.same({ "host", "operator", "job", "group", "task" }, table.move(places, i, i + 4, 1, {}))
      end
    end)
  end

  local checks = {
    received = function(spec) assert.equal("busybox:1", spec.config.image) end,
    setup = function(spec) assert.equal(8, spec.resources.memory) end,
    ports = function(list) assert.same({ 1, "web", "integer" }, { #list, list[1].label, math.type(list[1].host_port) }) end,
    pull = function(subject) assert.same({ image = "busybox:1" }, subject) end,
    pulled = function(image) assert.matches("^sha256:", image.id) end,
    create = function(body) assert.equal("busybox:1", body.Image) end,
    prestart = function(body) assert.equal(8 * 1024 * 1024, body.HostConfig.Memory) end,
    created = function(subject) assert.equal(64, #subject.id) end,
    started = function(subject) assert.equal(("DOCKER:"), subject.handle:sub(1, 7)) end,
    healthy = function(subject) assert.equal(64, #subject.id) end,
    unhealthy = function(subject) assert.equal("lua check 1: the second look", subject.reason) end,
    oom = function(subject) assert.is_true(subject.kills >= 1) end,
    kill = function(how) assert.same({ signal = "SIGTERM", timeout = 1 }, how) end,
    killed = function(subject) assert.equal(64, #subject.id) end,
    exited = function(result) assert.is_true(result.oom) end,
    restart = function(decision)
      assert.same({ true, 1, false }, { decision.restart, decision.attempt, decision.failed })
      assert.is_true(decision.delay >= 0.05 and decision.delay <= 0.0625)
    end,
    cleanup = function(subject) assert.equal(64, #subject.container_id) end,
    stopped = function(result) assert.is_number(result.exit_code) end,
    failed = function(err) assert.equal("pull", err.kind) end,
  }

  for _, name in ipairs(hooks.names) do
    it(("'%s' gets its subject"):format(name), function() checks[name](subjects[name].subject) end)
  end

  it("sees the task, and cannot write to it", function()
    local task = subjects.started.task
    assert.same({ "group", "task", 0, "running" }, { task.group, task.name, task.alloc.index, task.state })
    assert.equal("busybox:1", task.image)
    assert.equal(tostring(task.ports[1].host_port), task.env.NOMAD_PORT_web)
    local names = {}
    for name in pairs(task.env) do names[name] = true end
    assert.is_true(names.NOMAD_ALLOC_ID)
    for _, write in ipairs {
      function() task.name = "other" end, function() task.env.X = "1" end, function() task.ports[1].host_port = 1 end,
    } do
      local ok, why = pcall(write)
      assert.is_false(ok)
      assert.matches("read%-only", why)
    end
  end)
end)
