-- Runs every script of docs/hooks.md under `dockrun run --hooks`, all at the same time.
local engines = require "spec.engine"
local hooks = require "dockrun.hooks"
local jobs = require "spec.jobs"

local STAYS = "touch /local/ready; while :; do sleep 0.1; done"

-- For each script: the job's fields, the exit code of its command, that of dockrun (`status`), and text of dockrun's stderr
-- or of its last event `failed`.
-- `stop`: the job is stopped once it runs. `check` gets the engine and the result.
local cases = {
  received = { command = "test $TZ = Europe/Amsterdam && exit 5", exit_code = 5 },
  setup = { command = "test $NOMAD_MEMORY_LIMIT = 256 && exit 5", resources = "memory = 512", exit_code = 5 },
  ports = { command = "test $NOMAD_IP_admin = 127.0.0.1 && exit 5", exit_code = 5,
    resources = [[memory = 32, network = { dynamic_ports = { "admin" } }]] },
  pull = { image = "busybox:latest", failed = "vetoed by hook 'pull' (operator): name a fixed tag, not busybox:latest" },
  pulled = { command = "true", exit_code = 0, stderr = "task uses busybox:1, sha256:" },
  create = { command = STAYS, stop = true, container = function(container)
    assert.same({ "unknown", 64 }, { container.Config.Labels.owner, container.HostConfig.PidsLimit })
  end },
  prestart = { command = "test -n \"$CREATED_AT\" && exit 5", exit_code = 5 },
  created = { command = "true", exit_code = 0, file = "/tmp/%s.cid" },
  started = { command = "true", exit_code = 0, stderr = "task: web is at ",
    resources = [[memory = 32, network = { dynamic_ports = { "web" } }]] },
  healthy = { command = STAYS, stop = "healthy", stderr = "task is healthy: ",
    task = [[check = { type = "exec", command = "true", interval = "50ms" },]] },
  unhealthy = { command = STAYS, killing = "task is unhealthy: ",
    task = [[check = { type = "exec", command = "false", interval = "50ms" },]] },
  oom = { command = "(x=a; while :; do x=$x$x; done); sleep 0.5", resources = "memory = 8", stderr = "task needs more than 8 MB: " },
  exited = { command = "exit 3", status = 0 },
  restart = { command = "exit 2", restart = "attempts = 3, delay = 0", failed = "exit code 2 is a usage error" },
  failed = { command = "exit 7", exit_code = 7, stderr = ".task failed: exit code 7" },
  cleanup = { command = "echo the last words; exit 7", exit_code = 7, stderr = "the last words" },
  kill = { command = "trap 'exit 8' USR1; trap '' TERM; " .. STAYS, stop = true, exit_code = 8,
    task = [[meta = { stop_signal = "SIGUSR1" },]] },
  killed = { command = STAYS, stop = true, stderr = "task: container " },
  stopped = { command = "trap 'exit 6' TERM; " .. STAYS, stop = true, stderr = "task was stopped, exit code 6" },
}

-- The name and the text of every Lua block.
local function scripts()
  local file <close> = assert(io.open "docs/hooks.md")
  local list = {}
  for text in file:read("a"):gmatch "```lua\n(.-)```" do list[#list + 1] = { name = text:match "^%-%- (%w+)%.lua: ", text = text } end
  return list
end

describe("docs/hooks.md", function()
  local engine, endpoint
  local runs, whole = {}, nil

  local function start(script)
    local case = cases[script.name]
    local path, file = jobs.write(script.text)
    local run = { case = case, file = file, name = jobs.unique("docs-" .. script.name) }
    run.child = jobs.start(endpoint, jobs.text {
      name = run.name, image = case.image or "busybox:1", command = case.command or "true", resources = case.resources,
      task = case.task, restart = case.restart,
    }, { "--hooks", path })
    runs[script.name] = run
  end

  -- Lets the job run until it can be stopped.
  local function stop(run)
    local event = run.child:event "started"
    jobs.await_ready(event.alloc)
    if run.case.container then run.container = engine:container_inspect(event.container_id) end
    if run.case.stop ~= true then run.child:event(run.case.stop) end
    run.child:kill "SIGINT"
  end

  setup(function()
    engine, endpoint = engines.ready()
    for _, script in ipairs(scripts()) do
      if script.name == "job" then whole = script.text else start(script) end
    end
    for _, run in pairs(runs) do
      if run.case.stop then stop(run) end
    end
    for _, run in pairs(runs) do run.result = jobs.finish(run.child) end
  end)

  teardown(function()
    for _, run in pairs(runs) do
      local _ <close> = run.file
      local _ <close> = run.child.file
      run.child:close()
    end
  end)

  it("has a script for every hook", function()
    local names = {}
    for _, script in ipairs(scripts()) do names[assert(script.name, "a script without its name")] = true end
    names.job = nil
    local expected = {}
    for _, name in ipairs(hooks.names) do expected[name] = true end
    assert.same(expected, names)
  end)

  for name, case in pairs(cases) do
    it(("has a script for '%s' that does what it says"):format(name), function()
      local run = runs[name]
      local by, stderr = run.result.by, run.result.stderr
      assert.same(case.failed and "a veto" or nil, by.hook_failed and (case.failed and "a veto" or by.hook_failed.message))
      if case.status then assert.equal(case.status, run.result.code, stderr) end
      if case.exit_code then assert.equal(case.exit_code, by.exited and by.exited.exit_code, stderr) end
      if case.stderr then assert.matches(case.stderr, stderr, 1, true) end
      if case.failed then assert.matches(case.failed, by.failed.message, 1, true) end
      if case.killing then assert.matches(case.killing, by.killing.message, 1, true) end
      if case.container then case.container(run.container) end
      if case.file then
        local path = case.file:format(run.name)
        local file <close> = assert(io.open(path))
        assert.matches("^%x+\n$", file:read "a")
        os.remove(path)
      end
      assert.same({}, jobs.containers(engine, run.name))
    end)
  end

  it("has a job with a hook of its own", function()
    local name = jobs.unique "hooked"
    assert.equal(0, jobs.run(endpoint, (whole:gsub('job "hooked"', ("job %q"):format(name)))).code)
  end)
end)
