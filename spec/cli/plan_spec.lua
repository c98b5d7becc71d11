-- dockrun plan, and `run` of a job that exists already, on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local store = require "dockrun.store"

describe("a job that exists already", function()
  local engine, endpoint, name, path

  setup(function() engine, endpoint = engines.ready() end)

  -- A job whose parts are set by variables on the command line.
  local TEXT = [[
return job %q {
  type = "service",
  meta = { tier = var.tier or "gold" },
  group "g" {
    count = tonumber(var.count or "1"),
    update = var.update and { max_parallel = tonumber(var.parallel or "1"), min_healthy_time = var.least or "1s",
      healthy_deadline = "2h", auto_revert = var.update == "revert" } or nil,
    restart = { attempts = 0 },
    task "t" {
      config = { image = "busybox:1", command = "sh", args = { "-c", var.command or "exec sleep 600" } },
      kill_timeout = var.patience or 0, shutdown_delay = var.delay or "0s",
      env = { LEVEL = var.level or "info" }, kill_signal = var.signal,
      resources = { cpu = tonumber(var.cpu or "100"), memory = tonumber(var.memory or "32"),
        network = { dynamic_ports = { "web" }, reserved_ports = { var.fixed } } },
    },
  },
}]]

  before_each(function()
    name = jobs.unique "plan"
    path = jobs.write(TEXT:format(name))
  end)
  after_each(function()
    process.run { "stop", "--endpoint", endpoint, "--state-dir", jobs.state_dir, name }
    os.remove(path)
    assert.same({}, jobs.containers(engine, name))
  end)

  local function words(args, vars)
    local all = { "--endpoint", endpoint, "--state-dir", jobs.state_dir }
    table.move(args, 1, #args, #all + 1, all)
    for key, value in pairs(vars or {}) do table.move({ "--var", key .. "=" .. value }, 1, 2, #all + 1, all) end
    return all
  end

  local function dockrun_with(args, vars) return process.run(words(args, vars)) end

  local function run(vars)
    local result = dockrun_with({ "run", "-d", path }, vars)
    assert.equal(0, result.code, result.stderr)
    return result
  end

  it("is not refused by limits.allocs, but an addition to it is, before anything starts", function()
    run { count = "2" }
    local state = assert(store.open(jobs.state_dir))
    local _ <close> = setmetatable({}, { __close = function() state:close() end })
    local live = assert(state:count_allocs())
    local limit = "limits.allocs=" .. live
    local function limited(command, count)
      return dockrun_with({ "--set", limit, table.unpack(command) }, { count = count })
    end
    local refusal = ("adds 1 allocations, which makes %d; limits.allocs is %d"):format(live + 1, live)
    for _, command in ipairs { { "run", "-d", path }, { "plan", path } } do
      local refused = limited(command, "3")
      assert.equal(2, refused.code)
      assert.matches(refusal, refused.stderr, 1, true)
    end
    assert.equal(2, #jobs.containers(engine, name))
    for _, count in ipairs { "2", "1" } do assert.equal(0, limited({ "run", "-d", path }, count).code) end
    limit = "limits.allocs=1"
    assert.equal(0, limited({ "run", "-d", path }, "1").code)
    assert.equal(1, #jobs.containers(engine, name))
  end)

  -- The plan: "task action", and the fields as "path: old -> new".
  local function plan(vars)
    local result = dockrun_with({ "plan", "--json", path }, vars)
    local told, actions, fields = assert(dockrun.json.decode(result.stdout), result.stderr), {}, {}
    for _, change in ipairs(told.changes) do
      actions[#actions + 1] = ("%s[%d].%s %s"):format(change.group, change.index, change.task, change.action)
      for _, field in ipairs(change.fields) do
        fields[#fields + 1] = ("%s: %s -> %s"):format(field.path, field.old, field.new)
      end
    end
    local nothing = true
    for _, action in ipairs(actions) do nothing = nothing and action:find " none$" ~= nil end
    assert.equal(nothing and 0 or 1, result.code)
    return actions, fields
  end

  local function container(index)
    for _, one in ipairs(jobs.containers(engine, name)) do
      if one.Labels["dockrun.index"] == tostring(index or 0) then return assert(engine:container_inspect(one.Id)) end
    end
  end

  it("is planned as new if it does not exist, and nothing is changed", function()
    assert.same({ "g[0].t create", "g[1].t create" }, (plan { count = 2 }))
    assert.same({}, jobs.containers(engine, name))
  end)

  it("is left unchanged if it is up to date", function()
    run()
    local before = container()
    assert.same({ "g[0].t none" }, (plan()))
    run()
    assert.equal(before.Id, container().Id)
  end)

  it("is replaced if its job adds or removes a stop signal", function()
    run()
    assert.same({ "g[0].t replace" }, (plan { signal = "SIGTERM" }))
    run { signal = "SIGTERM" }
    assert.same({ "g[0].t none" }, (plan { signal = "SIGTERM" }))
    assert.same({ "g[0].t replace" }, (plan()))
  end)

  it("is updated in place if only resources differ: the same process, other limits in the kernel", function()
    run()
    local before = container()
    local actions, fields = plan { memory = 48, cpu = 300 }
    assert.same({ "g[0].t in_place" }, actions)
    assert.same({ "resources.cpu: 100 -> 300", "resources.memory: 32 -> 48" }, fields)
    for _, wanted in ipairs { { memory = 48, cpu = 300 }, { memory = 16, cpu = 50 } } do
      local result = run(wanted)
      assert.matches("updated", result.stderr)
      local after = container()
      assert.same({ before.Id, before.State.Pid }, { after.Id, after.State.Pid })
      local stat = assert(dockrun.cgroup.read(after.State.Pid))
      assert.equal(wanted.memory * 1024 * 1024, stat.memory.limit)
      if stat.version == 1 then assert.equal(wanted.cpu, stat.cpu.shares) end
      assert.same({ "g[0].t none" }, (plan(wanted)))
    end
  end)

  it("quotes the engine if a limit cannot be set, and leaves the task running", function()
    local fills = "dd if=/dev/zero of=/dev/null bs=20M count=1; x=$(head -c 12000000 /dev/zero | tr '\\\\0' x); "
      .. "touch /local/ready; sleep 600"
    run { command = fills }
    local before = container()
    jobs.await_ready(before.Config.Labels["dockrun.alloc"], "t")
    local result = dockrun_with({ "run", "-d", path }, { memory = 5, command = fills })
    if result.code ~= 0 then assert.matches("cannot change the limits of task 't' %(5 MB, 100 MHz%)", result.stderr) end
    assert.equal(before.State.Pid, container().State.Pid)
  end)

  for _, case in ipairs {
    { "command", "exec sleep 700", "config.args[2]: exec sleep 600 -> exec sleep 700" },
    { "level", "debug", "env.LEVEL: info -> debug" },
    { "tier", "silver", "meta.tier: gold -> silver" },
  } do
    local key, value, field = table.unpack(case)
    it("is replaced if this differs: " .. key, function()
      run()
      local before = container()
      local actions, fields = plan { [key] = value }
      assert.same({ { "g[0].t replace" }, { field } }, { actions, fields })
      run { [key] = value }
      assert.not_equal(before.Id, container().Id)
      assert.equal(1, #jobs.containers(engine, name))
      assert.same({ "g[0].t none" }, (plan { [key] = value }))
    end)
  end

  it("is left unchanged if only the agent's own options differ", function()
    run()
    assert.same({ "g[0].t none" }, (plan { delay = "1s" }))
  end)

  it("loses and gains allocations with its count", function()
    run { count = 3 }
    assert.same({ "g[0].t none", "g[1].t stop", "g[2].t stop" }, (plan { count = 1 }))
    run { count = 1 }
    assert.equal(1, #jobs.containers(engine, name))
    assert.same({ "g[0].t none", "g[1].t create" }, (plan { count = 2 }))
  end)

  it("is printed as text for people", function()
    run()
    local result = dockrun_with({ "plan", path }, { memory = 48, level = "debug" })
    assert.equal(1, result.code)
    assert.equal([[
-/+ g[0].t: replace
      env.LEVEL: "info" -> "debug"  forces replacement
      resources.memory: 32 -> 48
]], result.stdout)
    assert.matches("is up to date", dockrun_with({ "plan", path }).stdout)
  end)

  it("is printed in colours on a terminal, and without them with NO_COLOR", function()
    run { count = 2 }
    local line = ("'%s' --endpoint '%s' --state-dir '%s' plan --var level=debug --var count=3 '%s'"):format(
      process.program, endpoint, jobs.state_dir, path)
    local function on_terminal(env)
      return process.run({ "-qec", line, "/dev/null" }, { program = "script", env = env }).stdout:gsub("\r", "")
        :gsub("\27%[31m", "<red>"):gsub("\27%[32m", "<green>"):gsub("\27%[0m", "<>")
    end
    local colored = on_terminal { NO_COLOR = false, TERM = "xterm" }
    assert.equal([[
<red>-/+ g[0].t: replace<>
      env.LEVEL: <red>"info"<> -> <green>"debug"<>  forces replacement
<red>-/+ g[1].t: replace<>
      env.LEVEL: <red>"info"<> -> <green>"debug"<>  forces replacement
<green>+   g[2].t: create<>
]], colored)
    assert.equal(colored:gsub("<%l*>", ""), (on_terminal { NO_COLOR = "1", TERM = "xterm" }))
  end)

  it("is taken over by `run` in the foreground, and stopped by `stop` from elsewhere", function()
    run()
    local before = container()
    local child <close> = process.start(words { "run", "--json", path })
    child:wait_for '"event":"reattached"'
    assert.equal(before.Id, container().Id)
    local second = dockrun_with { "run", path }
    assert.equal(1, second.code)
    assert.matches("is run by another dockrun", second.stderr)
    assert.equal(0, dockrun_with({ "stop", name }).code)
    assert.equal(0, child:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("is stopped by a second Ctrl-C, including tasks that are not yet taken over", function()
    run { count = 3, patience = "10m" }
    local child <close> = process.start(words({ "-v", "run", path }, { count = 3, patience = "10m" }))
    child:wait_for "/containers/json"
    child:kill "SIGINT"
    child:wait_for "stopping"
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  describe("with an update block", function()
    it("is replaced one allocation at a time, each only when its successor is healthy", function()
      run { count = 2, update = "yes" }
      local old = { container(0).Id, container(1).Id }
      local child <close> = process.start(words({ "run", "--json", path }, { count = 2, update = "yes", level = "debug" }))
      local _ = child:wait_for('"event":"exited"')
      local order = {}
      while #order < 4 do
        dockrun.sleep(0.05)
        order = {}
        for line in child.stdout:gmatch "[^\n]+\n" do
          local event = dockrun.json.decode(line)
          if event and (event.event == "started" or event.event == "exited") then
            order[#order + 1] = event.event .. (event.container_id == old[1] and "1" or event.container_id == old[2] and "2" or "+")
          end
        end
      end
      assert.same({ "started+", "exited1", "started+", "exited2" }, order)
      assert.equal(0, dockrun_with({ "stop", name }).code)
      child:wait()
    end)

    it("is replaced max_parallel allocations at a time", function()
      run { count = 4, update = "yes", parallel = 2 }
      local child <close> = process.start(words({ "run", "--json", path },
        { count = 4, update = "yes", parallel = 2, level = "debug" }))
      local started, exits
      repeat  -- how many of the old ones had gone when each successor started
        dockrun.sleep(0.05)
        started, exits = {}, 0
        for line in child.stdout:gmatch "[^\n]+\n" do
          local event = dockrun.json.decode(line)
          if event and event.event == "exited" then exits = exits + 1 end
          if event and event.event == "started" then started[#started + 1] = exits end
        end
      until #started == 4 and exits == 4 or child.result
      assert.same({ 0, 0, 2, 2 }, started)
      assert.equal(0, dockrun_with({ "stop", name }).code)
      child:wait()
    end)

    it("counts a task as healthy only if it runs for min_healthy_time", function()
      local short = ("[ $LEVEL = info ] || { %s; exit 3; }; exec sleep 600"):format(jobs.gate "fail")
      run { update = "yes", command = short }
      local update <close> = process.start(words({ "run", "-d", "--json", path },
        { update = "yes", command = short, level = "debug", least = "1h" }))
      jobs.open(dockrun.json.decode(update:wait_for '({[^\n]*"event":"started"[^\n]*})\n').alloc, "fail")
      local result = update:wait()
      assert.equal(1, result.code)
      assert.matches("task 't' failed; the previous allocation still runs", result.stderr)
      assert.equal(1, #jobs.containers(engine, name))
      local before = container()
      run { update = "yes", command = short, level = "debug", least = "0s" }
      assert.not_equal(before.Id, (container() or {}).Id)
    end)

    it("keeps the old allocation if its successor fails", function()
      run { update = "yes" }
      local before = container()
      local result = dockrun_with({ "run", "-d", path }, { update = "yes", command = "exit 3", least = "1h" })
      assert.equal(1, result.code)
      assert.matches("the update of .* failed: task 't' failed; the previous allocation still runs", result.stderr)
      assert.equal(before.Id, container().Id)
      assert.equal(1, #jobs.containers(engine, name))
    end)

    it("restarts the old allocation if a fixed port made it stop first", function()
      local port = 21000 + math.random(0, 8999)
      run { update = "revert", fixed = port }
      local result = dockrun_with({ "run", "-d", path },
        { update = "revert", fixed = port, command = "exit 3", least = "1h" })
      assert.equal(1, result.code)
      assert.matches("reverted to the previous version", result.stderr)
      assert.same({ "sh", "-c", "exec sleep 600" }, container().Config.Cmd)
      assert.is_true(container().State.Running)
    end)

    it("rolls back the whole job if one allocation fails, including those that succeeded", function()
      run { count = 3, update = "revert" }
      local kept = container(2)
      local result = dockrun_with({ "run", "-d", path }, { count = 4, update = "revert", least = "5s",
        command = "[ $NOMAD_ALLOC_INDEX != 1 ] || exit 3; exec sleep 700" })
      assert.equal(1, result.code)
      assert.matches("%[1%] failed: task 't' failed; the previous allocation still runs; reverted to the previous version", result.stderr)
      for index = 0, 2 do assert.same({ "sh", "-c", "exec sleep 600" }, container(index).Config.Cmd) end
      assert.equal(kept.Id, container(2).Id)
      assert.is_nil(container(3))
      assert.same({ "g[0].t none", "g[1].t none", "g[2].t none" }, (plan { count = 3, update = "revert" }))
    end)
  end)
end)
