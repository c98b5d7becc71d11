-- Out of memory, by the engine's word and by the kernel's own count, each without the other.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"

describe("a task whose memory runs out", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  local EATS = "x=a; while :; do x=$x$x; done"
  -- A child of it runs out of memory, and it goes on until that was told.
  local WAITS = ("trap told=1 USR1; (%s); until test $told; do sleep 0.05; done; exit 3"):format(EATS)

  -- Runs a job; `prepare` is called with the agent before. Gives the last event of each name, and how many `oom` there were.
  local function run(command, prepare)
    local agent <close> = agents.new(endpoint)
    if prepare then prepare(agent) end
    local job = agents.job { command = command, resources = "memory = 8" }
    agent:submit(job)
    if command == WAITS then
      eventually("it is out of memory", function() return agents.names(agent.told):find "oom" end)
      assert(engine:container_kill(agent.tasks[1].container_id, { signal = "SIGUSR1" }))
    end
    agent:wait()
    assert.same({}, jobs.containers(engine, job.name))
    local by, ooms = {}, 0
    for _, event in ipairs(agent.told) do
      by[event.event] = event
      ooms = ooms + (event.event == "oom" and 1 or 0)
    end
    return by, ooms
  end

  -- The engine's own word of it never arrives.
  local function deaf(agent)
    local add = agent.watch.add
    function agent.watch:add(id)
      local listener = add(self, id)
      return {
        push = function(_, event) return listener:push(event) end,
        pop = function()
          local event
          repeat event = listener:pop() until event.action ~= "oom"
          return event
        end,
      }
    end
  end

  it("is told by the kernel's count where the engine says nothing, also of a child alone", function()
    local by = run(WAITS, deaf)
    assert.is_true(by.oom.oom)
    assert.same({ 3, true }, { by.exited.exit_code, by.exited.oom })
  end)

  it("is told by the engine's event where no cgroup can be read", function()
    local by = run(WAITS, function(agent)
      local real = agent.engine
      agent.engine = setmetatable({ endpoint = function() return "tcp://elsewhere:2375" end }, { __index = function(_, name)
        return function(_, ...) return real[name](real, ...) end
      end })
    end)
    assert.is_true(by.oom.oom)
    assert.same({ 3, true }, { by.exited.exit_code, by.exited.oom })
  end)

  it("says what happened: all of it killed, or a process of it", function()
    local by = run(EATS)
    assert.same({ 137, 9, true }, { by.exited.exit_code, by.exited.signal, by.exited.oom })
    assert.equal("killed by the kernel: out of memory", by.exited.message)
    by = run(("(%s); exit 4"):format(EATS))
    assert.equal("exit code 4; the kernel killed a process of it: out of memory", by.exited.message)
  end)

  for what, command in pairs { ["was killed by SIGKILL"] = "sh -c 'kill -9 $$'; exit $?", ["exited with 137 itself"] = "exit 137" } do
    it("is told from one that " .. what, function()
      local by, ooms = run(command)
      assert.same({ 137, false, 0 }, { by.exited.exit_code, by.exited.oom, ooms })
    end)
  end

  it("is told from one that was killed from outside", function()
    local agent <close> = agents.new(endpoint)
    agent:submit(agents.job { command = "sleep 600" })
    local task = agent.tasks[1]
    while not task.watching do dockrun.sleep(0.02) end
    assert(engine:container_kill(task.container_id))
    agent:wait()
    assert.same({ 137, 9, false }, { task.result.exit_code, task.result.signal, task.result.oom })
  end)
end)
