-- Every arrow of the state machine, gone on a real engine: the last example counts them against the table.
local agents = require "dockrun.agent"
local apply = require "dockrun.agent.apply"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local lifecycle = require "dockrun.task.lifecycle"
local load = require "dockrun.job.load"
local options = require "dockrun.options"
local uv = require "luv"

describe("the state machine of a task", function()
  local own, engine
  local gone = {}  -- "from>to" -> true

  setup(function()
    own = engines.start()
    engine = assert(dockrun.connect { endpoint = own.endpoint })
    engines.image(own, "busybox:1")
  end)
  teardown(function() own:stop() end)

  -- A job of one task (or the tasks of `fields.group`) as a table.
  local function job_of(fields)
    return assert(load.string(jobs.text {
      name = jobs.unique "arrow", image = fields.image or "busybox:1", command = fields.command or "true", restart = fields.restart,
      resources = fields.resources, task = fields.task, group = fields.group,
    }, "lua", "spec"))
  end

  local function new_agent(hooks)
    local set = options.new()
    set["docker.endpoint"], set.state_dir = own.endpoint, jobs.state_dir
    local agent = assert(agents.new(set))
    for name, hook in pairs(hooks or {}) do agent.hooks:register(name, hook) end
    return agent
  end

  -- Runs a job; `at["from>to"](task)` is called, in a task of its own, when an arrow was gone. Returns the arrows.
  local function run(job, hooks, at)
    local agent = new_agent(hooks)
    local way = {}
    agent.on_transition = function(task, from, to)
      local arrow = from .. ">" .. to
      way[#way + 1], gone[arrow] = arrow, true
      local action = (at or {})[arrow]
      if action then dockrun.spawn(action, task) end
    end
    local _ <close> = setmetatable({}, { __close = function()
      agent:kill()
      agent:close()
    end })
    require("spec.agent.agents").submit(agent, job)
    agent:wait()
    assert.same({}, jobs.containers(engine, job.name))
    return table.concat(way, " "), agent
  end

  local function stop(task) task:stop "the spec" end

  it("goes from the file to the end", function()
    assert.equal("received>setup setup>pulling pulling>creating creating>starting starting>running running>exited " ..
      "exited>cleanup cleanup>dead", run(job_of {}))
  end)

  it("ends as failed, after a restart", function()
    local way = run(job_of { command = "exit 1", restart = [[attempts = 1, delay = "20ms"]] })
    assert.matches("exited>waiting waiting>pulling pulling>creating .* exited>cleanup cleanup>failed$", way)
  end)

  it("is stopped before a restart", function()
    local way = run(job_of { command = "exit 1", restart = [[attempts = 1, delay = "1h", interval = "9h"]] }, {},
      { ["exited>waiting"] = stop })
    assert.matches("exited>waiting waiting>cleanup cleanup>dead$", way)
  end)

  for _, case in ipairs {
    { "received", "received>cleanup cleanup>failed" }, { "setup", "setup>cleanup cleanup>failed" },
    { "pull", "pulling>cleanup cleanup>failed" }, { "create", "creating>cleanup cleanup>failed" },
  } do
    local hook, expected = table.unpack(case)
    it(("ends where a hook says no at '%s'"):format(hook), function()
      local way = run(job_of {}, { [hook] = function() return false, "no" end })
      assert.equal(expected, way:sub(-#expected))
    end)
  end

  it("ends where its turn can never come", function()
    local way = run(job_of { group = [[task "other" { config = { image = "busybox:1", command = "false" }, resources = { memory = 32 } },]],
      task = [[depends_on = { other = "completed" },]] })
    assert.matches("received>cleanup", way)
  end)

  it("tries again where the registry is away", function()
    local way = run(job_of { image = "127.0.0.1:9/nothing:1", restart = [[attempts = 1, delay = "20ms"]] })
    assert.matches("pulling>waiting waiting>pulling pulling>cleanup", way)
  end)

  -- The engine is away for a moment, at a hook's time.
  for _, case in ipairs { { "create", "creating>waiting" }, { "created", "starting>waiting" } } do
    local hook, expected = table.unpack(case)
    it(("tries again where the engine is away after '%s'"):format(hook), function()
      local once = true
      local way = run(job_of { restart = [[attempts = 9, delay = "1s", interval = "1h"]] }, {
        [hook] = function()
          if once then own:kill() end
          if once then dockrun.spawn(function() own:restart() end) end
          once = false
        end,
      })
      assert.truthy(way:find(expected, 1, true), way)
      assert.matches("cleanup>dead$", way)
    end)
  end

  it("takes another port where its own was lost", function()
    local thief
    local way = run(job_of { resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] }, {
      created = function(task)
        if thief then return end
        thief = uv.new_tcp()
        assert(thief:bind("0.0.0.0", task.ports[1].host_port))
        assert(thief:listen(1, function() end))
      end,
    })
    thief:close()
    assert.matches("starting>setup setup>pulling pulling>creating creating>starting starting>running", way)
  end)

  it("ends where the container cannot start", function()
    local job = job_of {}
    job.groups[1].tasks[1].config.command = "/no/such/command"
    assert.matches("starting>cleanup cleanup>failed$", (run(job)))
  end)

  -- Health as it is told, one look after the other; then the container ends, or is stopped.
  for _, case in ipairs {
    { "healthy", { true }, "exit", "running>healthy healthy>exited" },
    { "unhealthy", { false }, "exit", "running>unhealthy unhealthy>exited" },
    { "healthy, then not, then again", { true, false, true }, "exit",
      "running>healthy healthy>unhealthy unhealthy>healthy healthy>exited" },
    { "healthy", { true }, "stop", "running>healthy healthy>stopping stopping>exited" },
    { "unhealthy", { false }, "stop", "running>unhealthy unhealthy>stopping stopping>exited" },
  } do
    local what, looks, ending, expected = table.unpack(case)
    it(("is %s, and ends by %s"):format(what, ending), function()
      local job = job_of { command = "while ! test -e /local/go; do sleep 0.05; done",
        task = [[check = { type = "lua", interval = "50ms", run = function() return true end },]] }
      local i = 0
      job.groups[1].tasks[1].checks[1].run = function()
        i = i + 1
        return looks[math.min(i, #looks)], "look " .. i
      end
      local last = expected:match(ending == "exit" and "(%S+) %S+$" or "(%S+) %S+ %S+$")
      local way = run(job, {}, {
        [last] = ending == "stop" and stop or function(task)
          if i < #looks then return end
          assert(io.open(task.context.dirs.task .. "/go", "w")):close()
        end,
      })
      assert.truthy(way:find(expected, 1, true), way)
    end)
  end

  it("is stopped while it runs", function()
    assert.matches("running>stopping stopping>exited exited>cleanup cleanup>dead$",
      (run(job_of { command = "exec sleep 600" }, {}, { ["starting>running"] = stop })))
  end)

  -- A job whose process goes away when `at` (an arrow of its task) was gone, and another one that takes over. Returns the
  -- second one's arrows, and its agent.
  local function hand_over(job, at, between)
    local way = {}
    local function note(_, from, to)
      way[#way + 1] = from .. ">" .. to
      gone[way[#way]] = true
    end
    local first, left = new_agent(), dockrun.queue()
    first.on_transition = function(task, from, to)
      note(task, from, to)
      if from .. ">" .. to == at then
        first:release()
        left:push(task)
        dockrun.queue():pop()  -- as a killed process: nothing of it happens any more
      end
    end
    assert(apply.run(first, job))
    local task = left:pop(120)
    if between then between(task) end
    way = {}
    local agent = new_agent()
    agent.on_transition = note
    assert(apply.run(agent, job))
    return function()
      agent:wait()
      agent:close()
      assert.same({}, jobs.containers(engine, job.name))
      assert.is_nil((uv.fs_stat(task.context.dirs.root)))
      return table.concat(way, " ")
    end, task
  end

  local function let_end(task) assert(io.open(task.context.dirs.task .. "/go", "w")):close() end

  it("is watched from where another process left it", function()
    local ended, task = hand_over(job_of { command = "while ! test -e /local/go; do sleep 0.05; done" }, "starting>running")
    let_end(task)
    assert.equal("received>running running>exited exited>cleanup cleanup>dead", ended())
  end)

  it("tells the true end of what ended while nobody watched", function()
    local ended = hand_over(job_of { command = "exit 7" }, "starting>running", function(task)
      while assert(engine:container_inspect(task.container_id)).State.Running do dockrun.sleep(0.02) end
    end)
    assert.equal("received>running running>exited exited>cleanup cleanup>failed", ended())
  end)

  it("decides what another process saw, and had not decided", function()
    local ended = hand_over(job_of { command = "exit 7" }, "running>exited")
    assert.equal("received>exited exited>cleanup cleanup>failed", ended())
  end)

  it("waits on for the restart that another process had decided", function()
    local ended = hand_over(job_of { command = "exit 7", restart = [[attempts = 1, delay = "200ms", interval = "1h"]] }, "exited>waiting")
    assert.matches("^received>waiting waiting>pulling pulling>creating .*running>exited exited>cleanup cleanup>failed$", ended())
  end)

  it("tidies up on where another process left off", function()
    local ended = hand_over(job_of {}, "exited>cleanup")
    assert.equal("received>cleanup cleanup>dead", ended())
  end)

  it("begins anew where another process had not come far enough", function()
    local ended = hand_over(job_of {}, "creating>starting")
    assert.matches("^received>setup setup>pulling .* cleanup>dead$", ended())
  end)

  it("has no arrow that none of these has gone", function()
    local missing = {}
    for _, row in ipairs(lifecycle.transitions) do
      local arrow = row[1] .. ">" .. row[2]
      if not gone[arrow] then missing[#missing + 1] = arrow end
    end
    assert.same({}, missing)
  end)
end)
