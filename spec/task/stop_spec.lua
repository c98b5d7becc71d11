-- Stops at every moment of a task's life, on a real engine.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local process = require "spec.process"
local servers = require "spec.server"
local uv = require "luv"

describe("a stop", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  -- The stop comes while what the task waits for is over already, one step of the runtime later for each allocation.
  it("that comes just when a hook ends loses neither the container's end nor its hooks", function()
    local waiting, going, exits = {}, {}, {}
    local agent <close> = agents.new(endpoint, {
      started = function(task)
        jobs.await_ready(task.alloc.id)
        waiting[task.alloc.index] = true
        going[task.alloc.index]:pop()
      end,
      exited = function(task, result) exits[task.alloc.index] = result.exit_code end,
    })
    local job = agents.job { group = "count = 12,", command = "trap 'exit 7' TERM; touch /local/ready; while :; do sleep 0.1; done" }
    job.groups[1].tasks[1].kill_timeout = 120  -- twelve shells that hear at once need their time on a busy host
    for i = 0, 11 do going[i] = dockrun.queue() end
    agent:submit(job)
    local stops = {}
    for i, task in ipairs(agent.tasks) do
      stops[i] = dockrun.spawn(function()
        eventually("its hook waits", function() return waiting[i - 1] end)
        going[i - 1]:push(true)
        for _ = 1, i do coroutine.yield() end
        task:stop "the spec"
      end)
    end
    for _, one in ipairs(stops) do one:await() end
    agent:wait()
    for i, task in ipairs(agent.tasks) do
      local told = agents.names(agent.told, task.alloc_id)
      assert.matches("killing", told)
      assert.matches("exited.* removed$", told)
      assert.equal(7, exits[i - 1], told)
    end
    assert.same({}, jobs.containers(engine, job.name))
  end)

  local STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"

  local function count(events, name)
    local n = 0
    for _, event in ipairs(events) do n = n + (event.event == name and 1 or 0) end
    return n
  end

  -- At each arrow of its way, in the middle of what comes then: the engine is just making or starting a container.
  for _, case in ipairs {
    { "received>setup", false }, { "setup>pulling", false }, { "pulling>creating", false }, { "creating>starting", true },
    { "starting>running", true },
  } do
    local arrow, may_run = table.unpack(case)
    it(("that comes just after %s leaves nothing"):format(arrow), function()
      local agent <close> = agents.new(endpoint)
      local stops = {}
      agent.on_transition = function(task, from, to)
        if from .. ">" .. to == arrow then stops[#stops + 1] = dockrun.spawn(task.stop, task, "the spec") end
      end
      local job = agents.job { command = "exec sleep 600" }
      agent:submit(job)
      assert.is_true(agent:wait())
      stops[1]:await()
      local told = agents.names(agent.told)
      if not may_run then assert.falsy(told:find "started") end
      if told:find "started" then assert.matches("exited.*removed$", told) end
      assert.equal("dead", agent.tasks[1].state)
      assert.same({}, jobs.containers(engine, job.name))
      assert.is_nil((uv.fs_stat(jobs.state_dir .. "/alloc/" .. agent.tasks[1].alloc_id)))
    end)
  end

  -- A registry that takes every connection and says nothing.
  local function silent_registry() return servers.start(function(connection) connection:await_end() end, { tcp = true }) end

  it("that comes in a pull that hangs does not wait for it, and a second one neither", function()
    local registry <close> = silent_registry()
    local agent <close> = agents.new(endpoint)
    local job = agents.job { image = registry.url:match "//([^/]+)" .. "/none:1" }
    agent:submit(job)
    while count(agent.told, "pulling") == 0 do dockrun.sleep(0.02) end
    local first, second = dockrun.spawn(agent.stop_job, agent, nil, "one"), dockrun.spawn(agent.stop_job, agent, nil, "two")
    first:await(120)
    second:await(120)
    assert.same({ "done", "done", "dead" }, { first:status(), second:status(), agent.tasks[1].state })
    assert.equal("received setup pulling", agents.names(agent.told))
  end)

  it("that comes with another, from whomever, is one stop", function()
    local agent <close> = agents.new(endpoint)
    local job = agents.job { task = [[kill_timeout = "2m",]],
      command = "trap 'exit 7' TERM; touch /local/ready; while :; do sleep 0.1; done" }
    agent:submit(job)
    local task = agent.tasks[1]
    while not task.watching or not uv.fs_stat(task.context.dirs.task .. "/ready") do dockrun.sleep(0.02) end
    dockrun.all {
      function() task:stop "a" end, function() task:stop "b" end, function() agent:stop_job(job.name, "c") end,
      function() agent:stop_job(nil, "d") end, function() task.alloc:stop "e" end,
    }
    assert.is_true(agent:wait())
    assert.same({ 1, 1, 1 }, { count(agent.told, "killing"), count(agent.told, "exited"), count(agent.told, "removed") })
    assert.equal(7, task.result.exit_code)
  end)

  it("by two commands and Ctrl-C at once is one stop", function()
    local name = jobs.unique "thrice"
    local child <close> = jobs.start(endpoint, jobs.text { name = name, image = "busybox:1",
      command = "trap 'sleep 0.3; exit 7' TERM; while :; do sleep 0.1; done" })
    local _ <close> = child.file
    child:event "started"
    local words = { "stop", "--endpoint", endpoint, "--state-dir", jobs.state_dir, name }
    local one <close> = process.start(words)
    local two <close> = process.start(words)
    child:kill "SIGINT"
    local ended = child:wait()
    assert.is_true(ended.code == 130 or ended.code == 0, child.stderr)
    for _, stop in ipairs { one, two } do
      local result = stop:wait()
      assert.is_true(result.code == 0 or result.stderr:find "no job" ~= nil, result.stderr)
    end
    assert.equal(1, count(child:events(), "killing"))
    assert.same({}, jobs.containers(engine, name))
  end)

  it("in its shutdown_delay sees the container end by itself, and asks no kill hook", function()
    local asked = false
    local agent <close> = agents.new(endpoint, { kill = function() asked = true end })
    agent:submit(agents.job { command = "while ! test -e /local/go; do sleep 0.05; done; exit 3", task = [[shutdown_delay = "1h",]] })
    local task = agent.tasks[1]
    while not task.watching do dockrun.sleep(0.02) end
    local stop = dockrun.spawn(task.stop, task)
    while task.state ~= "stopping" do dockrun.sleep(0.02) end
    assert(io.open(task.context.dirs.task .. "/go", "w")):close()
    stop:await(120)
    agent:wait()
    assert.same({ 3, false }, { task.result.exit_code, asked })
  end)

  -- A second Ctrl-C: whatever the first one is waiting for is over.
  for what, case in pairs {
    ["a signal that is ignored"] = { command = STUBBORN, task = [[kill_timeout = "1h",]] },
    ["a shutdown_delay"] = { command = "sleep 600", task = [[shutdown_delay = "1h",]] },
    ["a kill hook"] = { command = "sleep 600", hooks = "kill = hang" },
    ["a kill hook that catches what is raised"] = { command = "sleep 600", hooks = "kill = hang_on" },
    ["an exited hook"] = { command = "exec sleep 600", hooks = "exited = hang" },
    ["a cleanup hook"] = { command = "exec sleep 600", hooks = "cleanup = hang" },
    ["a cleanup hook that catches what is raised"] = { command = "exec sleep 600", hooks = "cleanup = hang_on" },
    ["a stopped hook"] = { command = "exec sleep 600", hooks = "stopped = hang" },
  } do
    it("that becomes a kill does not wait for " .. what, function()
      local name = jobs.unique "kill"
      local path, file = jobs.write(([[
        local dockrun = require "dockrun"
        function hang() io.stderr:write "it hangs\n" dockrun.sleep(900) end
        function hang_on() io.stderr:write "it hangs\n" while true do pcall(dockrun.sleep, 900) end end
        return { %s }]]):format(case.hooks or ""))
      local _ <close> = file
      local child <close> = jobs.start(endpoint, jobs.text { name = name, image = "busybox:1", command = case.command, task = case.task },
        { "--hooks", path, "--set", "hook_timeout=600" })
      local _ <close> = child.file
      child:event "started"
      child:kill "SIGINT"
      child:wait_for(case.hooks and "it hangs" or "killing")
      child:kill "SIGINT"
      assert.equal(130, child:wait().code)
      assert.same({}, jobs.containers(engine, name))
    end)
  end

  it("that becomes a kill is one in a hook that catches it, in a pull that hangs, and in a delay too", function()
    local registry <close> = silent_registry()
    for _, fields in ipairs {
      { image = registry.url:match "//([^/]+)" .. "/none:1", until_ = "pulling" },
      { command = "exit 1", restart = [[attempts = 2, delay = "1h", interval = "9h"]], until_ = "restarting" },
      { until_ = "received", hooks = { received = function() while true do pcall(dockrun.sleep, 900) end end } },
    } do
      local agent <close> = agents.new(endpoint, fields.hooks)
      local job = agents.job(fields)
      agent:submit(job)
      while count(agent.told, fields.until_) == 0 do dockrun.sleep(0.02) end
      local killing = dockrun.spawn(agent.kill, agent)
      killing:await(120)
      assert.same({ "done", "dead" }, { killing:status(), agent.tasks[1].state })
      assert.same({}, jobs.containers(engine, job.name))
    end
  end)
end)
