-- An agent in a script does the same with jobs as the commands do, on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("a script's agent", function()
  local shared, engine, name, path

  setup(function()
    shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
  end)

  local function words(...) return { "--endpoint", shared.endpoint, "--state-dir", jobs.state_dir, ... } end

  local function command(...)
    local args = words()
    table.insert(args, 1, (...))
    return process.run(table.move({ ... }, 2, select("#", ...), #args + 1, args))
  end

  local function job(fields)
    if path then os.remove(path) end
    fields.name, fields.image = name, "busybox:1"
    fields.command = fields.command or "exec sleep 600"
    fields.task = 'kill_signal = "SIGKILL", ' .. (fields.task or "")
    path = jobs.write(jobs.text(fields))
  end

  before_each(function()
    name = jobs.unique "scripted"
    job {}
  end)

  after_each(function()
    command("stop", name)
    os.remove(path)
  end)

  -- Runs code with `agent`, `job` and `name` defined; a script that has to keep running prints "ready" and sleeps.
  local PREFIX = [[
    local dockrun = require "dockrun"
    local path, name = ...
    local agent, job = assert(dockrun.agent()), assert(dockrun.load_job(path))
  ]]

  local function script(code) return words("-e", PREFIX .. code, path, name) end

  local function output_of(code)
    local result = process.run(script(code))
    assert.equal(0, result.code, result.stderr)
    return result.stdout
  end

  local function start(code)
    local child = process.start(script(code .. " print 'ready' io.stdout:flush() dockrun.sleep(600)"))
    child:wait_for "ready"
    return child
  end

  local function ids()
    local list = {}
    for i, container in ipairs(jobs.containers(engine, name)) do list[i] = container.Id end
    return list
  end

  it("keeps one container of a job, also after a killed script, and `dockrun stop` stops it", function()
    local first <close> = start "assert(agent:run(job))"
    local before = ids()
    assert.equal(1, #before)
    first:kill "SIGKILL"
    first:wait()
    local second <close> = start [[
      local status, err = agent:run(job)
      assert(not err, err)
      assert(#status.jobs == 1 and status.jobs[1].name == name)
      print(status.jobs[1].tasks[1].state, status.jobs[1].tasks[1].container_id)]]
    assert.matches("running\t" .. before[1], second.stdout, 1, true)
    assert.same(before, ids())
    assert.equal(0, command("stop", name).code)
    assert.same({}, ids())
  end)

  it("holds the job lock while it runs the job, and is notified of its end", function()
    local child <close> = start [[
      assert(agent:run(job))
      dockrun.spawn(function() agent.held[name].fiber:join() print "ended" io.stdout:flush() end)]]
    assert.equal("taken\n", output_of "print(select(2, agent:run(job)).kind)")
    assert.equal("taken\n", output_of "print(select(2, agent:run(job, { wait = 'none' })).kind)")
    assert.matches("is run by another dockrun", command("run", path).stderr)
    assert.equal(1, #ids())
    assert.equal("true\n", output_of "print(agent:stop(name))")  -- the other script stops it
    child:wait_for "ended"
    assert.same({}, ids())
    assert.equal("failed\n", output_of "print(select(2, agent:stop 'no-such-job').kind)")
  end)

  it("changes limits in place, as planned", function()
    output_of "assert(agent:run(job))"  -- and leaves the job running
    local before = ids()
    job { resources = "memory = 48" }
    assert.equal("in_place resources.memory\nin_place\nnone\n", output_of [[
      local change = assert(agent:plan(job)).changes[1]
      print(change.action .. " " .. change.fields[1].path)
      print(assert(agent:plan(path)).changes[1].action)
      assert(agent:run(job))
      print(assert(agent:plan(job)).changes[1].action)]])
    assert.same(before, ids())
    assert.equal(48 * 1024 * 1024, assert(engine:container_inspect(before[1])).HostConfig.Memory)
  end)

  it("describes a job if it is given something else", function()
    assert.equal(("a job is the path of its file, or what dockrun.load_job returned\n"):rep(4), output_of [[
      for _, what in ipairs { "run", "plan" } do
        for _, wrong in ipairs { 5, { name = "x", groups = {} } } do
          print((select(2, pcall(agent[what], agent, wrong)):gsub("^%S+: ", "")))
        end
      end]])
  end)

  it("waits for the state that the caller names", function()
    job { command = "exit 3" }
    assert.equal("failed 3 failed\n", output_of [[
      local status, err = agent:run(job, { wait = "exited" })
      print(status.jobs[1].status .. " " .. status.jobs[1].tasks[1].exit_code .. " " .. err.kind)]])
    job { task = 'checks = { { type = "script", command = "test", args = { "-e", "/local/go" }, interval = "100ms" } },' }
    assert.equal("timeout running\nhealthy\n", output_of [[
      assert(agent:run(job, { wait = "running" }))
      local status, err = agent:run(job, { wait = "healthy", timeout = 0.5 })
      print(err.kind .. " " .. status.jobs[1].tasks[1].state)
      local id = status.jobs[1].tasks[1].container_id
      local exec = assert(agent.engine:exec_create(id, { body = { Cmd = { "touch", "/local/go" } } }))
      assert(agent.engine:exec_start(exec.Id, { body = { Detach = true } }))
      status, err = agent:run(job, { wait = "healthy", timeout = 180 })
      print(status and not err and "healthy" or err)]])
    assert.equal("{}\n", output_of [[
      assert(agent:run(job, { wait = "none" }))
      assert(agent:stop(name, { purge = true }))
      print(dockrun.json.encode(agent:status(name).jobs[1] or {}))]])
  end)
end)
