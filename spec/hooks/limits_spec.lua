-- Hooks that exceed their budget beside a task that continues: none harms it, and each ends with a message.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local runtime = require "dockrun.core.runtime"

describe("beside a task that runs on, a hook", function()
  local engine, endpoint, agent, sibling, looks

  -- A sibling that is looked at ten times a second, all through the file.
  setup(function()
    engine, endpoint = engines.ready()
    agent = agents.new(endpoint, {}, { hook_timeout = 1, hook_instructions = 20000000, hook_memory = 128, hook_seconds = 20 })
    local job = agents.job { command = "trap 'exit 7' TERM; touch /local/ready; while :; do sleep 0.1; done",
      task = [[kill_timeout = "2m", check = { type = "lua", interval = "100ms", run = function() return true end },]] }
    looks = 0
    job.groups[1].tasks[1].checks[1].run = function()
      looks = looks + 1
      return true
    end
    agent:submit(job)
    sibling = agent.tasks[1]
    while sibling.state ~= "healthy" do dockrun.sleep(0.02) end
    jobs.await_ready(sibling.alloc_id)
  end)

  teardown(function()
    agent:kill()
    agent:close()
  end)

  -- Runs a job with a hook to its end. The sibling is the same afterwards, and is looked at again.
  local function run(name, hook, command)
    local job = agents.job { command = command }
    job.groups[1].tasks[1].hooks = { [name] = hook }
    agent.told = {}
    agent:submit(job)
    local task = agent.tasks[#agent.tasks]
    task.fiber:await(120)
    assert.is_true(task:ended(), "it never came to its end")
    assert.same({}, jobs.containers(engine, job.name))
    local by = {}
    for _, event in ipairs(agent.told) do
      if event.job == job.name then by[event.event] = event end
    end
    local before = looks
    while looks == before do dockrun.sleep(0.02) end
    assert.equal("healthy", sibling.state)
    return by, task
  end

  local LOOP, MEMORY, LATE = "more than 20000000 instructions", "memory", "took more than 1 s"

  for what, case in pairs {
    ["loops"] = { function() while true do end end, LOOP },
    ["loops, whatever is raised"] = { function() while true do pcall(function() while true do end end) end end, LOOP },
    ["loops in a coroutine"] = { function() coroutine.wrap(function() while true do end end)() end, LOOP },
    ["loops in a coroutine, whatever is raised"] = {
      function() while true do coroutine.resume(coroutine.create(function() while true do end end)) end end, LOOP },
    ["loops in a task that it spawned"] = { function() dockrun.spawn(function() while true do end end):await() end, LOOP },
    ["loops in a metamethod"] = {
      function() return setmetatable({}, { __index = function() while true do end end }).x end, LOOP },
    ["matches a pattern that never ends"] = { function() return ("a"):rep(40):find(("a?"):rep(40) .. ("a"):rep(40)) end, LOOP },
    ["repeats a string far too often"] = { function() return ("x"):rep(1 << 30) end, MEMORY },
    ["makes a string longer and longer"] = { function() local s = "x" while true do s = s .. s end end, MEMORY },
    ["fills a table"] = { function() local t = {} while #t >= 0 do t[#t + 1] = {} end end, MEMORY },
    ["spawns tasks without end"] = { function() while true do dockrun.spawn(function() dockrun.sleep(900) end) end end, "it " },
    ["calls itself"] = { function() local function f() return 1 + f() end f() end, "stack overflow" },
    ["calls itself through C"] = { function() local function f() return ("x"):gsub(".", f) end f() end, "stack overflow" },
    ["raises nothing"] = { function() error(nil) end, "an error without a message" },
    ["raises a table"] = { function() error {} end, "an error that is a table" },
    ["raises what cannot be printed"] = {
      function() error(setmetatable({}, { __tostring = function() error "no" end })) end, "cannot be shown" },
    ["raises what prints for ever"] = {
      function() error(setmetatable({}, { __tostring = function() while true do end end })) end, LOOP },
    ["raises after a wait in pcall"] = { function() pcall(dockrun.sleep, 0.01) error "at last" end, "at last" },
    ["yields in pcall, then raises"] = { function() pcall(coroutine.yield, 1) error "at last" end, "at last" },
    ["yields for ever"] = { function() while true do coroutine.yield() end end, "" },  -- too many instructions, or too late
    ["waits for ever"] = { function() dockrun.sleep(900) end, LATE },
    ["waits for ever, whatever is raised"] = { function() while true do pcall(dockrun.sleep, 900) end end, LATE },
    ["waits for ever when it is closed"] = {
      function()
        local _ <close> = setmetatable({}, { __close = function() while true do pcall(dockrun.sleep, 900) end end })
        error "first"
      end, LATE },
    ["closes the coroutine that waits"] = {
      function()
        local inner = coroutine.create(function() dockrun.sleep(900) end)
        coroutine.resume(inner)
        dockrun.sleep(900)
      end, LATE },
    ["closes itself"] = { function() coroutine.close(coroutine.running()) end, "cannot close a running coroutine" },
    ["kills its own task"] = { function() dockrun.current():kill() dockrun.sleep(1) end, "killed" },
    ["cancels its own task"] = { function() dockrun.current():cancel() dockrun.sleep(1) end, "cancelled" },
    ["waits for itself"] = { function() dockrun.current():await() end, "cannot wait for its own end" },
    ["waits where nothing can"] = { function() table.sort({ 1, 2 }, function() dockrun.sleep(1) end) end, "cannot wait inside" },
    ["exits with an error of the runtime's"] = { function() error(runtime.error("odd", "quite odd")) end, "quite odd" },
  } do
    local hook, expected = table.unpack(case)
    it(what .. ": its own task fails, and says why", function()
      local by, task = run("create", hook)
      assert.equal("failed", task.state)
      assert.matches("hook 'create' (task)", by.failed.message, 1, true)
      assert.matches(expected, by.failed.message, 1, true)
      assert.is_nil(by.created)
    end)
  end

  it("that exceeds its budget after the start is reported, and its task continues", function()
    for _, hook in ipairs { function() while true do end end, function() while true do pcall(dockrun.sleep, 900) end end } do
      local by, task = run("started", hook, "exit 0")
      assert.equal("dead", task.state)
      assert.matches("hook 'started'", by.hook_failed.message)
      assert.equal(0, by.exited.exit_code)
    end
  end)

  it("may leave a fiber that continues, and a fiber that loops ends", function()
    local ended = dockrun.queue()
    local _, task = run("create", function()
      dockrun.spawn(function()
        dockrun.sleep(0.2)
        ended:push "the child"
      end)
    end)
    assert.equal("dead", task.state)
    assert.equal("the child", ended:pop(120))
    run("create", function()
      dockrun.spawn(function()
        local _ <close> = setmetatable({}, { __close = function() ended:push "the loop" end })
        pcall(function() while true do end end)
      end)
    end)
    assert.is_nil((ended:pop(0.1)))
  end)

  it("that failed takes its children with it", function()
    local child
    run("create", function()
      child = dockrun.spawn(function() while true do pcall(dockrun.sleep, 900) end end)
      error "enough"
    end)
    pcall(child.await, child, 5)
    assert.equal("failed", child:status())
  end)

  it("stops its own job, and no other", function()
    local by, task = run("started", function(view) view.stop "seen enough" end, "exec sleep 600")
    assert.equal("dead", task.state)
    assert.equal("seen enough", by.killing.message)
  end)

  it("stops its own job and waits for that, to no end but its own", function()
    local by, task = run("started", function(view)
      agent:stop_job(view.job, "and wait")
    end, "exec sleep 600")
    assert.equal("dead", task.state)
    assert.equal("and wait", by.killing.message)
  end)

  it("calls whatever there is: the engine, HTTP, a command in the container, sleep, spawn, a queue", function()
    local said
    local limits = agent.hooks.limits
    local timeout = limits.timeout
    limits.timeout = 120  -- a command in a container takes its time on a busy host
    finally(function() limits.timeout = timeout end)
    local by = run("started", function(view, started)
      local client = assert(dockrun.connect { endpoint = view.endpoint })
      local exec = assert(client:exec_create(started.id, { body = { Cmd = { "echo", "from within" }, AttachStdout = true } }))
      local stream <close> = assert(client:exec_start(exec.Id, { body = { Detach = false } }))
      local queue = dockrun.queue()
      dockrun.spawn(function()
        for text in stream do queue:push(text) end
      end)
      said = queue:pop()
      local answer, err = dockrun.http.request { url = "http://127.0.0.1:9/", timeout = 0.5 }
      if answer then error "nothing listens there" end
      dockrun.sleep(0.01)
      if not err then error "and that was not said" end
      view.stop "seen enough"
    end, "exec sleep 600")
    assert.equal("from within\n", said)
    assert.is_nil(by.hook_failed)
  end)

  it("was never noticed by the other task", function()
    agent.told = {}
    sibling:stop "the end"
    sibling.fiber:await(120)
    local exited
    for _, event in ipairs(agent.told) do
      if event.alloc == sibling.alloc_id and event.event == "exited" then exited = event end
    end
    assert.same({ 7, 0 }, { exited.exit_code, sibling.restarts.total })
  end)
end)
