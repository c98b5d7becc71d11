local engines = require "spec.engine"
local jobs = require "spec.jobs"

describe("hooks", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  -- Runs a job whose task has these hooks, under an operator's file with those.
  local function run(own, operator, command, args)
    local path, file
    args = { table.unpack(args or {}) }
    if operator then
      path, file = jobs.write(operator)
      table.move({ "--hooks", path }, 1, 2, #args + 1, args)
    end
    local _ <close> = file
    local name = jobs.unique "hooked"
    local result = jobs.run(endpoint, jobs.text {
      name = name, image = "busybox:1", command = command or "true", task = ("hooks = { %s },"):format(own or ""),
    }, args)
    assert.same({}, jobs.containers(engine, name))
    return result
  end

  it("change what the engine is asked for", function()
    local result = run([[prestart = function(task, container) table.insert(container.Env, "FROM=" .. task.name) end]],
      [[return { create = function(_, container) container.Labels.by = "operator"; container.HostConfig.PidsLimit = 9 end }]],
      "test $FROM = task && exit 5")
    assert.equal(5, result.by.exited.exit_code)
  end)

  it("run at prestart, create, started, exited and stopped, in the task's order", function()
    local log, file = jobs.write ""
    local _ <close> = file
    local operator = ([[
      local log = %q
      local hooks = {}
      for name in ("received setup ports pull pulled create prestart created started exited cleanup"):gmatch "%%S+" do
        hooks[name] = function() local f <close> = io.open(log, "a"); f:write(name, " ") end
      end
      return hooks]]):format(log)
    assert.equal(0, run(nil, operator).code)
    local f <close> = io.open(log)
    assert.equal("received setup ports pull pulled create prestart created started exited cleanup ", f:read "a")
  end)

  it("run when a task is stopped", function()
    local log, log_file = jobs.write ""
    local _ <close> = log_file
    local path, file = jobs.write(([[
      local function note(name) return function() local f <close> = io.open(%q, "a"); f:write(name, " ") end end
      return { kill = note "kill", killed = note "killed", exited = note "exited", stopped = note "stopped" }]]):format(log))
    local _ <close> = file
    local child <close> = jobs.start(endpoint, jobs.text { name = jobs.unique "stop", image = "busybox:1", command = "sleep 60" },
      { "--hooks", path })
    local _ <close> = child.file
    child:event "started"
    child:kill "SIGINT"
    child:wait()
    local f <close> = io.open(log)
    local told = f:read "a"
    for _, name in ipairs { "kill ", "killed ", "exited ", "stopped " } do
      assert.truthy(told:find(name, 1, true), told .. child.stdout .. child.stderr)
    end
    assert.truthy(told:find "stopped $", told)
  end)

  it("run in the order operator, then the task's own", function()
    local result = run([[prestart = function(_, c) c.Cmd = { "sh", "-c", "exit " .. c.Labels.n .. "2" } end]],
      [[return { prestart = function(_, c) c.Labels.n = "1" end }]])
    assert.equal(12, result.by.exited.exit_code)
  end)

  it("veto: the task fails with the reason, and nothing is left", function()
    local result = run(nil, [[return { create = function() return false, "not on a Friday" end }]])
    assert.equal(1, result.code)
    assert.truthy(result.by.failed.message:find "not on a Friday")
    assert.is_nil(result.by.created)
  end)

  local PATIENT = { "--set", "hook_seconds=60" }  -- where another limit is to be the first, on a slow host too

  for _, case in ipairs {
    { "raises", [[error "broken"]], "broken" },
    { "calls what is not there", [[nothing.at.all()]], "nothing" },
    { "writes to the task", [[task.name = "other"]], "read%-only" },
    { "runs on and on", "while true do end", "more than 50000000 instructions", PATIENT },
    { "makes a huge string", "local s = 'x' while true do s = s .. s end", "more than 128 MB of memory", PATIENT },
    { "keeps the processor busy", "local a, b = ('x'):rep(9e6), ('x'):rep(9e6 - 1) .. 'x' while a == b do end",
      "processor for more than 2 seconds" },
    { "puts a function into the body", [[request.Labels.f = print]], "must be JSON" },
  } do
    local what, code, expected, args = table.unpack(case, 1, 4)
    it("fails its own task alone, with a message, when it " .. what, function()
      local result = run(nil, ("return { create = function(task, request) %s end }"):format(code), nil, args)
      assert.equal(1, result.code)
      assert.truthy(result.by.failed.message:find(expected), result.by.failed.message)
      assert.falsy(result.stderr:find "traceback")
    end)
  end

  it("fail the task when they take too long", function()
    local result = run(nil, [[return { create = function() require("dockrun").sleep(60) end }]], nil, { "--set", "hook_timeout=0.2" })
    assert.equal(1, result.code)
    assert.truthy(result.by.failed.message:find "took more than 0.2 s")
  end)

  it("are only reported with on_error = 'ignore'", function()
    local result = run(nil, [[return { on_error = "ignore", create = function() error "broken" end }]])
    assert.equal(0, result.code)
    assert.truthy(result.by.hook_failed.message:find "broken")
  end)

  it("may call the engine and wait", function()
    local result = run(nil, [[
      local dockrun = require "dockrun"
      return { started = function(task, started)
        local engine = assert(dockrun.connect { endpoint = task.endpoint })
        local exec = assert(engine:exec_create(started.id, { body = { Cmd = { "touch", "/tmp/go" } } }))
        assert(engine:exec_start(exec.Id, { body = { Detach = true } }))
        dockrun.sleep(0.05)
      end }]], "until test -e /tmp/go; do sleep 0.1; done; exit 6")
    assert.equal(6, result.by.exited.exit_code)
  end)

  it("are refused as a file with a name that no transition has", function()
    local path, file = jobs.write [[return { prestrat = function() end }]]
    local _ <close> = file
    local result = jobs.run(endpoint, jobs.text { name = "x", image = "busybox:1", command = "true" }, { "--hooks", path })
    assert.equal(2, result.code)
    assert.truthy(result.stderr:find "prestrat")
  end)
end)
