-- The tasks of a group beside each other, on a real engine.
local engines = require "spec.engine"
local jobs = require "spec.jobs"

describe("the tasks of a group", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  -- A job of one group: tasks as { name, command, more lines of Lua }.
  local function text(name, tasks)
    local parts = {}
    for i, one in ipairs(tasks) do
      parts[i] = ([[task %q { config = { image = "busybox:1", command = "sh", args = { "-c", %q } }, kill_timeout = "1s",
        resources = { memory = 32 }, %s },]]):format(one[1], one[2], one[3] or "")
    end
    return ([[return job %q { type = "batch", group "g" { restart = { attempts = 0 }, %s } }]]):format(name, table.concat(parts, "\n"))
  end

  local ORDER = { started = true, exited = true, killing = true, failed = true }

  -- "task event …" of the events that tell the order.
  local function order(events)
    local list = {}
    for _, event in ipairs(events) do
      if ORDER[event.event] then list[#list + 1] = event.task .. " " .. event.event end
    end
    return list
  end

  -- Runs them to their end. `opens` are { task, event, gate } in the order in which they come: what opens which gate.
  local function run(tasks, opens)
    local name = jobs.unique "group"
    local child <close> = jobs.start(endpoint, text(name, tasks))
    local _ <close> = child.file
    for _, one in ipairs(opens or {}) do jobs.open(child:next_event(one[2], one[1]).alloc, one[3]) end
    local result = jobs.finish(child)
    assert.same({}, jobs.containers(engine, name))
    return order(result.events), result
  end

  local function position(list, wanted)
    for i, one in ipairs(list) do
      if one == wanted then return i end
    end
    error(("'%s' is not in: %s"):format(wanted, table.concat(list, ", ")), 2)
  end

  local function assert_order(list, ...)
    local last = 0
    for _, wanted in ipairs { ... } do
      local at = position(list, wanted)
      assert.is_true(at > last, ("'%s' comes too early in: %s"):format(wanted, table.concat(list, ", ")))
      last = at
    end
  end

  local gate = jobs.gate
  local SLEEPS, PRESTART = "exec sleep 600", [[lifecycle = { hook = "prestart" },]]

  it("run prestart, main, poststart and poststop tasks in their turn, and end the sidecars last", function()
    local list, result = run({
      { "tidy", "true", [[lifecycle = { hook = "poststop" },]] },
      { "after", "true", [[lifecycle = { hook = "poststart" },]] },
      { "main", gate "end" },
      { "proxy", SLEEPS, [[lifecycle = { hook = "prestart", sidecar = true },]] },
      { "before", "true", PRESTART },
    }, { { "after", "started", "end" } })
    assert_order(list, "before started", "before exited", "main started", "after started", "main exited", "tidy started", "tidy exited")
    assert_order(list, "proxy started", "main started", "main exited", "proxy killing", "proxy exited")
    assert.equal(0, result.code)
  end)

  it("do not begin where a prestart task fails, and all that ran ends", function()
    local list, result = run {
      { "main", "true" }, { "before", "exit 3", PRESTART },
      { "proxy", SLEEPS, [[lifecycle = { hook = "prestart", sidecar = true },]] },
    }
    assert.equal(1, result.code)
    for _, one in ipairs(list) do assert.not_equal("main started", one) end
  end)

  it("end with their leader", function()
    local list, result = run({ { "leads", gate "end", "leader = true," }, { "follows", SLEEPS } }, { { "follows", "started", "end" } })
    assert_order(list, "leads exited", "follows killing", "follows exited")
    assert.equal(0, result.code)
  end)

  it("end with one that failed", function()
    local list, result = run({ { "fails", gate "end" .. "; exit 2" }, { "other", SLEEPS } }, { { "other", "started", "end" } })
    assert_order(list, "fails exited", "other killing", "other exited")
    assert.equal(1, result.code)
  end)

  it("wait for each other by depends_on: started, healthy, completed", function()
    local list, result = run({
      { "last", "true", [[depends_on = { healthy = "healthy", done = "completed", up = "started" },]] },
      { "healthy", ("%s; touch /tmp/ok; %s"):format(gate "ok", gate "end"),
        [[check = { type = "exec", command = "test", args = { "-e", "/tmp/ok" }, interval = "100ms" },]] },
      { "done", gate "done" },
      { "up", gate "end" },
    }, { { "healthy", "started", "done" }, { "done", "exited", "ok" }, { "last", "started", "end" } })
    assert_order(list, "healthy started", "done exited", "last started")
    local healthy, last
    for _, event in ipairs(result.events) do
      if event.event == "healthy" then healthy = event.time end
      if event.event == "started" and event.task == "last" then last = event.time end
    end
    assert.is_true(healthy ~= nil and healthy < last, "it began before the other was healthy")
    assert.equal(0, result.code)
  end)

  it("say why one can never begin", function()
    local _, result = run { { "waits", "true", [[depends_on = { fails = "completed" },]] }, { "fails", "exit 2" } }
    assert.equal(1, result.code)
  end)

  it("are stopped the leader first, the sidecars last, and poststop tasks run then", function()
    local name = jobs.unique "stopped"
    local trap = "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.1; done"
    local child <close> = jobs.start(endpoint, text(name, {
      { "proxy", trap, [[lifecycle = { hook = "prestart", sidecar = true },]] },
      { "leads", trap, "leader = true," }, { "follows", trap },
      { "tidy", "true", [[lifecycle = { hook = "poststop" },]] },
    }))
    local _ <close> = child.file
    for _ = 1, 3 do child:next_event "started" end
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert_order(order(child:events()),
      "leads killing", "leads exited", "follows killing", "follows exited", "proxy killing", "proxy exited")
    assert_order(order(child:events()), "follows exited", "tidy started", "tidy exited")
    assert.same({}, jobs.containers(engine, name))
  end)

  local function by_task(events, name)
    local last = {}
    for _, event in ipairs(events) do
      if event.event == name then last[event.task] = event end
    end
    return last
  end

  it("say of each that cannot begin why not, for all three conditions", function()
    for condition, case in pairs {
      started = { { "other", "true", [[hooks = { create = function() return false end },]] }, "never started" },
      healthy = { { "other", "sleep 0.3; exit 2", [[check = { type = "exec", command = "false" },]] }, "exited first" },
      completed = { { "other", "exit 2" }, "did not complete" },
    } do
      local other, why = table.unpack(case)
      local _, result = run { { "waits", "true", ("depends_on = { other = %q },"):format(condition) }, other }
      assert.matches(("cannot start: depends on 'other' being %s, but 'other' %s"):format(condition, why),
        by_task(result.events, "failed").waits.message, 1, true)
      assert.is_nil(by_task(result.events, "started").waits)
      assert.equal(1, result.code)
    end
  end)

  it("run poststop tasks after a failure too, and none where nothing ever ran", function()
    local list, result = run { { "main", "exit 2" }, { "tidy", "true", [[lifecycle = { hook = "poststop" },]] } }
    assert_order(list, "main exited", "tidy started", "tidy exited")
    assert.equal(1, result.code)
    local name = jobs.unique "group"
    result = jobs.run(endpoint, (text(name, {
      { "main", "true" }, { "tidy", "true", [[lifecycle = { hook = "poststop" },]] },
    }):gsub('image = "busybox:1"', 'image = "127.0.0.1:9/none:1"')))
    assert.is_nil(by_task(result.events, "started").tidy)
    assert.matches("no container of its group ever ran", by_task(result.events, "failed").tidy.message)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("keep a poststart sidecar until the main tasks ended, and one that ends by itself is begun anew", function()
    local list, result = run({
      { "main", gate "end" },
      { "proxy", "test -e /local/ran && exec sleep 600; touch /local/ran",
        [[lifecycle = { hook = "poststart", sidecar = true }, restart = { attempts = 3, delay = "50ms" },]] },
    }, { { "proxy", "restarting", "restarting" }, { "proxy", "started", "end" } })
    assert_order(list, "main started", "proxy started", "proxy exited", "main exited", "proxy killing")
    assert.equal(0, result.code)
  end)

  it("end a leader's sidecars after its followers", function()
    local list, result = run({
      { "leads", gate "end", "leader = true," }, { "follows", "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.1; done" },
      { "proxy", SLEEPS, [[lifecycle = { hook = "prestart", sidecar = true },]] },
    }, { { "follows", "started", "end" } })
    assert_order(list, "leads exited", "follows killing", "follows exited", "proxy killing", "proxy exited")
    assert.equal(0, result.code)
  end)

  for what, case in pairs {
    ["a circle of two"] = { { a = { b = "started" }, b = { a = "started" } }, "a -> b -> a" },
    ["a circle of three"] = { { a = { b = "started" }, b = { c = "healthy" }, c = { a = "completed" } }, "in a circle" },
    ["one that waits for itself"] = { { a = { a = "started" }, b = {} }, "cannot depend on itself" },
    ["one that is not there"] = { { a = { bb = "started" }, b = {} }, "the group has no task 'bb'" },
    ["a condition that is none"] = { { a = { b = "ready" }, b = {} }, "depends_on.b" },
  } do
    it("are refused as a spec: " .. what, function()
      local tasks = {}
      for name, on in pairs(case[1]) do
        local parts = {}
        for other, condition in pairs(on) do parts[#parts + 1] = ("%s = %q"):format(other, condition) end
        tasks[#tasks + 1] = { name, "true", ("depends_on = { %s },"):format(table.concat(parts, ", ")) }
      end
      table.sort(tasks, function(x, y) return x[1] < y[1] end)
      local result = jobs.run(endpoint, text(jobs.unique "circle", tasks))
      assert.equal(2, result.code)
      assert.matches(case[2], result.stderr, 1, true)
      assert.same({}, result.events)
    end)
  end
end)
