-- Stops at every moment of a task's life, on a real engine.
local agents = require "spec.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local uv = require "luv"

describe("a stop", function()
  local engine, endpoint

  setup(function()
    local shared = engines.shared()
    endpoint = shared.endpoint
    engine = assert(dockrun.connect { endpoint = endpoint })
    engines.image(shared, "busybox:1")
  end)

  -- The stop comes while what the task waits for is over already, one step of the runtime later for each allocation.
  it("that comes just when a hook ends loses neither the container's end nor its hooks", function()
    local going, exits = {}, {}
    local agent <close> = agents.new(endpoint, {
      started = function(task)
        while not uv.fs_stat(jobs.state_dir .. "/alloc/" .. task.alloc.id .. "/task/local/ready") do dockrun.sleep(0.02) end
        going[task.alloc.index]:pop()
      end,
      exited = function(task, result) exits[task.alloc.index] = result.exit_code end,
    })
    local job = agents.job { group = "count = 12,", command = "trap 'exit 7' TERM; touch /local/ready; while :; do sleep 0.1; done" }
    for i = 0, 11 do going[i] = dockrun.queue() end
    agent:submit(job)
    local stops = {}
    for i, task in ipairs(agent.tasks) do
      stops[i] = dockrun.spawn(function()
        while task.state ~= "running" do dockrun.sleep(0.02) end
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
end)
