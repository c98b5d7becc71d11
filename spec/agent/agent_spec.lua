-- dockrun agent: the one that goes on by itself. On a real engine.
local commands = require "spec.commands"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local states = require "spec.states"

describe("dockrun agent", function()
  local engine, endpoint, name, path, agent

  setup(function() engine, endpoint = engines.ready() end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end
  local function start_agent()
    local child = commands.start(endpoint, "agent", "--json")
    child:wait_for "watching "
    return child
  end

  before_each(function()
    states.begin()
    name = jobs.unique "agent"
    path = jobs.write(([[
      return job %q { type = "service", group "g" {
        restart = { attempts = 9, delay = "50ms", interval = "1h", mode = "delay" },
        task "t" { config = { image = "busybox:1", command = "sh", args = { "-c", var.command or "exec sleep 600" } },
          kill_timeout = "1s", resources = { memory = tonumber(var.memory or "32") },
          hooks = { started = function(task) dockrun.sleep(0) end } } } }]]):format(name))
  end)
  after_each(function()
    if agent then agent:close() end
    agent = nil
    dockrun_with("stop", "--purge", name)
    os.remove(path)
    local left = commands.remove(engine, name)
    states.finish()
    assert.equal(0, left)
  end)

  it("takes a job over from `run -d`, and restarts its tasks", function()
    agent = start_agent()
    assert.equal(0, dockrun_with("run", "-d", path).code)
    local first = jobs.containers(engine, name)[1]
    assert(engine:container_kill(first.Id))
    agent:wait_for('"event":"restarting"')
    agent:wait_for('"event":"removed"')
    agent:wait_for('"event":"started".*"event":"started"')
    assert.not_equal(first.Id, jobs.containers(engine, name)[1].Id)
    local task = assert(dockrun.json.decode(dockrun_with("status", "--json", name).stdout)).jobs[1].tasks[1]
    assert.same({ "running", 1 }, { task.state, task.restarts })
  end)

  it("says what is wrong with a job to who hands it over", function()
    agent = start_agent()
    local result = dockrun_with("run", "-d", "--var", "memory=2", path)
    assert.not_equal(0, result.code)
    assert.matches("memory", result.stderr)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("changes a job that it runs already", function()
    agent = start_agent()
    assert.equal(0, dockrun_with("run", "-d", path).code)
    local first = jobs.containers(engine, name)[1].Id
    assert.equal(0, dockrun_with("run", "-d", "--var", "memory=48", path).code)
    local now = assert(engine:container_inspect(jobs.containers(engine, name)[1].Id))
    assert.same({ first, 48 * 1024 * 1024 }, { now.Id, now.HostConfig.Memory })
    assert.equal(0, dockrun_with("run", "-d", "--var", "memory=48", "--var", "command=exec sleep 700", path).code)
    assert.equal(1, #jobs.containers(engine, name))
    assert.not_equal(first, jobs.containers(engine, name)[1].Id)
    -- Limits that were changed in place stay over a restart.
    assert(engine:container_kill(jobs.containers(engine, name)[1].Id))
    agent:wait_for('"event":"restarting"')
  end)

  it("takes over what nobody watches, and leaves it running at its own end", function()
    local child <close> = commands.start(endpoint, "run", "--json", path)
    child:wait_for '"event":"started"'
    child:kill "SIGKILL"
    child:wait()
    local id = jobs.containers(engine, name)[1].Id
    for _, signal in ipairs { "SIGTERM", "SIGKILL", "SIGTERM" } do
      agent = start_agent()
      agent:wait_for '"event":"reattached"'
      assert.equal(1, dockrun_with("run", path).code)  -- it is watched
      agent:kill(signal)
      local ended = agent:wait()
      assert.equal(signal == "SIGTERM" and 0 or nil, ended.code, ended.stderr)
      assert.equal(id, jobs.containers(engine, name)[1].Id)
      assert.equal("running", jobs.containers(engine, name)[1].State)
    end
  end)

  it("begins nothing beside what it was replacing, where it ends meanwhile", function()
    agent = start_agent()
    local stubborn = "command=trap : TERM; while :; do sleep 1; done"
    assert.equal(0, dockrun_with("run", "-d", "--var", stubborn, path).code)
    local first = jobs.containers(engine, name)[1].Id
    local change <close> = commands.start(endpoint, "run", "-d", "--var", "command=exec sleep 700", path)
    agent:wait_for '"event":"killing"'
    agent:kill "SIGTERM"
    assert.equal(0, agent:wait().code)
    assert.not_equal(0, change:wait().code)
    local left = jobs.containers(engine, name)
    assert.same({ 1, first }, { #left, left[1].Id })
  end)

  it("stops a job for who asks it to", function()
    agent = start_agent()
    assert.equal(0, dockrun_with("run", "-d", path).code)
    assert.equal(0, dockrun_with("stop", name).code)
    assert.same({}, jobs.containers(engine, name))
    assert.equal("dead", assert(dockrun.json.decode(dockrun_with("status", "--json", name).stdout)).jobs[1].status)
    assert.equal(0, dockrun_with("run", "-d", path).code)  -- and can have it again
    assert.equal(1, #jobs.containers(engine, name))
  end)

  it("does not say of a job that it runs where nothing of it is left, and no text to begin it anew", function()
    local state = assert(states.open())
    assert(state:put_job { name = name, definition = { name = name, type = "service" }, status = "running", endpoint = endpoint })
    agent = start_agent()
    local status = eventually("it does not run", function()
      local told = assert(state:job(name)).status
      return told ~= "running" and told
    end)
    assert.equal("dead", status)
  end)

  it("is one for each state and engine", function()
    agent = start_agent()
    local second = dockrun_with "agent"
    assert.equal(1, second.code)
    assert.matches("agent", second.stderr)
  end)
end)
