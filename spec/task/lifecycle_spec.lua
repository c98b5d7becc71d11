-- The life of tasks on a real engine: restarts, stops at every point, what the events tell.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"

describe("a task", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  local function names(events)
    local list = {}
    for i, event in ipairs(events) do list[i] = event.event end
    return table.concat(list, " ")
  end

  local function run(fields, args)
    fields.name, fields.image = jobs.unique "life", "busybox:1"
    local result = jobs.run(endpoint, jobs.text(fields), args)
    assert.same({}, jobs.containers(engine, fields.name))
    return result
  end

  -- Starts a job, and stops it once it has said `event`, and has made /local/ready if it does that; `hooks` is an operator's file.
  local function stop_at(event, fields, hooks)
    fields.name, fields.image = jobs.unique "stop", fields.image or "busybox:1"
    local path, file
    if hooks then path, file = jobs.write(hooks) end
    local _ <close> = file
    local child <close> = jobs.start(endpoint, jobs.text(fields), hooks and { "--hooks", path, "--set", "hook_timeout=900" } or nil)
    local _ <close> = child.file
    local alloc = child:event(event).alloc
    if fields.command:find "/local/ready" then jobs.await_ready(alloc) end
    child:kill "SIGINT"
    local result = child:wait()
    assert.equal(130, result.code, child.stderr)
    assert.same({}, jobs.containers(engine, fields.name))
    return names(child:events()), child:events()
  end

  it("is restarted in a container of its own, keeping its ports and directories, until the policy gives up", function()
    local result = run {
      command = "echo x >> /local/runs; exit $(wc -l < /local/runs)", restart = [[attempts = 2, delay = "50ms", interval = "1m"]],
      resources = [[memory = 32, network = { dynamic_ports = { "web" } }]],
    }
    assert.equal(1, result.code)
    local codes, containers, ports = {}, {}, {}
    for _, event in ipairs(result.events) do
      if event.event == "exited" then codes[#codes + 1] = event.exit_code end
      if event.event == "started" then
        containers[event.container_id] = true
        ports[event.ports[1].host_port] = true
      end
      if event.event == "restarting" then assert.is_true(event.delay >= 0.05 and event.delay <= 0.0625, event.delay) end
    end
    assert.same({ 1, 2, 3 }, codes)
    local count = 0
    for _ in pairs(containers) do count = count + 1 end
    assert.equal(3, count)
    assert.is_nil(next(ports, next(ports)), "its ports changed")
    assert.matches("more than 2 restarts", result.by.not_restarting.message)
  end)

  it("of a batch job is done with exit code 0, after a restart too", function()
    local result = run {
      command = "test -e /local/seen && exit 0; touch /local/seen; exit 4", restart = [[attempts = 1, delay = "50ms"]],
    }
    assert.equal(0, result.code)
    assert.equal("received setup pulled created started exited restarting removed pulled created started exited removed",
      names(result.events))
  end)

  it("is stopped in the delay before a restart", function()
    local told = stop_at("restarting", { command = "exit 1", restart = [[attempts = 5, delay = "1h", interval = "10h"]] })
    assert.equal("received setup pulled created started exited restarting removed", told)
  end)

  for _, case in ipairs {
    { "received", "received" }, { "setup", "received" }, { "pull", "received setup" }, { "create", "received setup pulled" },
    { "created", "received setup pulled created removed" },
  } do
    local hook, expected = table.unpack(case)
    it(("is stopped in its hook '%s', and leaves nothing"):format(hook), function()
      local told = stop_at(hook == "created" and "created" or expected:match "%a+$", { command = "sleep 600" },
        ("return { %s = function() require('dockrun').sleep(900) end }"):format(hook))
      assert.equal(expected, told)
    end)
  end

  it("is stopped in its hook 'started'", function()
    local told = stop_at("started", { command = "trap 'exit 0' TERM; sleep 600 & wait" },
      "return { started = function() require('dockrun').sleep(900) end }")
    assert.truthy(told:find("killing.*exited"), told)
    assert.truthy(told:find "removed$", told)
  end)

  it("waits out its shutdown_delay, gets its kill_signal, and SIGKILL after kill_timeout", function()
    local _, events = stop_at("started", {
      command = "trap 'echo got it; exit 9' USR1; touch /local/ready; while :; do sleep 0.1; done",
      task = [[shutdown_delay = "300ms", kill_signal = "SIGUSR1", kill_timeout = "2m",]],
    })
    local at = {}
    for _, event in ipairs(events) do at[event.event] = event end
    assert.equal(9, at.exited.exit_code)
    local function seconds(event) return tonumber(event.time:match ":(%d%d%.%d+)Z$") end
    assert.is_true((seconds(at.exited) - seconds(at.killing)) % 60 >= 0.3)
  end)

  for signal, number in pairs { ["12"] = 12, ["SIGRTMIN+3"] = 37, ["rtmax-2"] = 62 } do
    it("is asked to end by its kill_signal " .. signal, function()
      local _, events = stop_at("started", {
        command = ("trap 'exit 9' %d; touch /local/ready; while :; do sleep 0.1; done"):format(number),
        task = ([[kill_signal = %q, kill_timeout = "2m",]]):format(signal),
      })
      assert.truthy(dockrun.json.encode(events):find '"exit_code":9')
    end)
  end

  it("is asked to end by its image's STOPSIGNAL, which its hooks see, and by another if one of them says so", function()
    local image, from = jobs.unique "stopsignal", jobs.unique "from"
    local id = assert(engine:container_create { name = from, body = { Image = "busybox:1", Cmd = { "true" } } }).Id
    local made = assert(dockrun.http.request {
      method = "POST", url = ("http://docker/commit?container=%s&repo=%s&tag=1"):format(id, image), body = '{"StopSignal":"SIGRTMIN+4"}',
      headers = { ["Content-Type"] = "application/json" }, unix_socket = endpoint:match "^unix://(.*)$",
    })
    assert.equal(201, made.status, made.body)
    assert(engine:container_remove(id))
    image = image .. ":1"
    local _ <close> = setmetatable({}, { __close = function() engine:image_remove(image) end })
    local command = "trap 'exit 9' 38; trap 'exit 8' USR1; touch /local/ready; while :; do sleep 0.1; done"
    local see = [[return { kill = function(_, how) how.timeout = how.signal == "SIGRTMIN+4" and 120 or 0 end }]]
    local _, events = stop_at("started", { command = command, image = image }, see)
    assert.truthy(dockrun.json.encode(events):find '"exit_code":9')
    _, events = stop_at("started", { command = command, image = image },
      [[return { kill = function(_, how) how.signal, how.timeout = "SIGUSR1", 120 end }]])
    assert.truthy(dockrun.json.encode(events):find '"exit_code":8')
    _, events = stop_at("started", { command = command, image = image, task = [[kill_signal = "SIGUSR1", kill_timeout = "2m",]] })
    assert.truthy(dockrun.json.encode(events):find '"exit_code":8')
  end)

  it("that ignores its signal is killed once kill_timeout is over", function()
    local _, events = stop_at("started", { command = "trap '' TERM; while :; do sleep 0.1; done" })
    for _, event in ipairs(events) do
      if event.event == "exited" then assert.same({ 137, 9, false }, { event.exit_code, event.signal, event.oom }) end
    end
  end)

  it("is killed by a second interrupt", function()
    local name = jobs.unique "twice"
    local child <close> = jobs.start(endpoint, jobs.text {
      name = name, image = "busybox:1", command = "trap '' TERM; while :; do sleep 0.1; done", task = [[kill_timeout = "1h",]],
    })
    local _ <close> = child.file
    child:event "started"
    child:kill "SIGINT"
    child:event "killing"
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("that the kernel kills for its memory says so, and is told from one that was merely killed", function()
    local eats = run { command = "x=a; while :; do x=$x$x; done", resources = "memory = 8" }
    assert.same({ 137, true }, { eats.by.exited.exit_code, eats.by.exited.oom })
    assert.is_true(eats.by.oom.oom)
    local killed = run { command = "kill -9 $$", config = "init = true," }
    assert.equal(137, killed.by.exited.exit_code)
    assert.is_false(killed.by.exited.oom)
    assert.is_nil(killed.by.oom)
  end)

  it("of which a child alone was killed for its memory tells so while it runs on", function()
    local name = jobs.unique "child"
    local child <close> = jobs.start(endpoint, jobs.text { name = name, image = "busybox:1", resources = "memory = 8",
      command = ("(x=a; while :; do x=$x$x; done); %s; exit 3"):format(jobs.gate "end") })
    local _ <close> = child.file
    jobs.open(child:event("oom").alloc, "end")
    local result = jobs.finish(child)
    assert.is_true(result.by.oom.oom)
    assert.equal(3, result.by.exited.exit_code)
  end)

  it("does not begin anew where a restart hook says no", function()
    local path, file = jobs.write [[return { restart = function(_, decision) if decision.restart then return false, "enough" end end }]]
    local _ <close> = file
    local result = run({ command = "exit 1", restart = [[attempts = 3, delay = "50ms"]] }, { "--hooks", path })
    assert.equal(1, result.code)
    assert.matches("enough", result.by.not_restarting.message)
  end)

  it("begins anew when a restart hook changes the decision", function()
    local path, file = jobs.write [[return { restart = function(task, decision)
      if task.restarts < 2 then decision.restart, decision.delay, decision.reason = true, 0, "the operator wants it" end
    end }]]
    local _ <close> = file
    local result = run({ command = "exit 1" }, { "--hooks", path })
    local starts = 0
    for _, event in ipairs(result.events) do starts = starts + (event.event == "started" and 1 or 0) end
    assert.equal(3, starts)
  end)

  it("may stop its own job from a hook", function()
    local path, file = jobs.write [[return { started = function(task) task.stop "seen enough" end }]]
    local _ <close> = file
    local result = run({ command = "sleep 600" }, { "--hooks", path })
    assert.equal(0, result.code)
    assert.equal("seen enough", result.by.killing.message)
  end)
end)
