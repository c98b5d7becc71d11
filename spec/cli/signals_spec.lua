-- The effect of signals on `run`, `agent` and a script, on a real engine.
local commands = require "spec.commands"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local states = require "spec.states"

describe("a signal", function()
  local engine, endpoint, name, path

  setup(function() engine, endpoint = engines.ready() end)
  before_each(function()
    states.begin()
    name = jobs.unique "signals"
    path = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600", task = "kill_signal = 9," })
  end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end
  local function start(...) return commands.start(endpoint, ...) end
  local function start_job(...)
    local child = start("run", "--json", path, ...)
    child:wait_for '"event":"started"'
    return child
  end
  local function state_of_container()
    local found = jobs.containers(engine, name)[1]
    return found and found.State
  end

  after_each(function()
    dockrun_with("stop", "--purge", name)
    os.remove(path)
    local left = commands.remove(engine, name)
    states.finish()
    assert.equal(0, left)
  end)

  it("SIGHUP stops a job as SIGINT does, and does not count as a second signal", function()
    local run <close> = start_job()
    for _ = 1, 3 do run:kill "SIGHUP" end
    run:wait_for "interrupted by SIGHUP: stopping"
    run:kill "SIGHUP"
    local result = run:wait()
    assert.equal(130, result.code, result.stderr)
    assert.is_nil(result.stderr:find(": killing", 1, true), result.stderr)
    assert.is_nil(state_of_container())
  end)

  it("SIGHUP stays ignored if it was ignored at the start, also after other signals", function()
    local args = commands.words(endpoint, "run", "--json", path)
    table.move({ "-c", 'trap "" HUP; exec "$0" "$@"', process.program }, 1, 3, 1, table.move(args, 1, #args, 4))
    local run <close> = process.start(args, { program = "sh" })
    run:wait_for '"event":"started"'
    for _, signal in ipairs { "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGXFSZ", "SIGHUP" } do run:kill(signal) end
    local status = dockrun_with("status", "--json", name)  -- meanwhile they have come
    assert.matches('"state":"running"', status.stdout)
    assert.equal("running", state_of_container())
    run:kill "SIGTERM"
    local result = run:wait()
    assert.equal(130, result.code, result.stderr)
    assert.matches("interrupted by SIGTERM", result.stderr)
    assert.is_nil(state_of_container())
  end)

  it("SIGHUP leaves the tasks running with --keep-on-hangup, and an agent takes them over", function()
    local run <close> = start_job "--keep-on-hangup"
    run:kill "SIGHUP"
    local result = run:wait()
    assert.equal(0, result.code, result.stderr)
    assert.matches("interrupted by SIGHUP: left the tasks running", result.stderr)
    assert.equal("running", state_of_container())
    local agent <close> = start("agent", "--json")
    agent:wait_for '"event":"reattached"'
    agent:kill "SIGHUP"
    agent:kill "SIGUSR1"
    assert.equal(0, dockrun_with("stop", name).code)
    assert.is_nil(state_of_container())
    agent:kill "SIGTERM"
    result = agent:wait()
    assert.equal(0, result.code, result.stderr)
    assert.matches("interrupted by SIGTERM: left the tasks running", result.stderr)
  end)

  it("SIGQUIT ends the process at once, and the next process takes over", function()
    local run <close> = start_job()
    run:kill "SIGQUIT"
    local result = run:wait()
    assert.equal(130, result.code, result.stderr)
    assert.matches("ended by SIGQUIT: containers run on", result.stderr)
    assert.equal("running", state_of_container())
    assert.equal(0, dockrun_with("stop", name).code)
  end)

  it("SIGXFSZ is an error of the write that exceeded the limit", function()
    local limited = process.run({ "--fsize=4096", process.program, "-e", [[
      local path = os.tmpname()
      local file = io.open(path, "w")
      file:setvbuf "no"
      local ok, why = file:write(("x"):rep(10000))
      os.remove(path)
      print(ok, why)]] }, { program = "prlimit" })
    assert.same({ 0, "nil\tFile too large\n" }, { limited.code, limited.stdout })
  end)
end)
