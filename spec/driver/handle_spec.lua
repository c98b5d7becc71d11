-- A task by the handle that was printed for it: on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("a handle", function()
  local engine, endpoint, name, handle

  setup(function() engine, endpoint = engines.ready() end)

  before_each(function()
    name = jobs.unique "handle"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1",
      command = "trap 'exit 9' USR1; trap 'exit 4' TERM; touch /local/ready; while :; do sleep 0.05; done" })
    local _ <close> = file
    local told = process.run({ "run", "-d", "--json", "--endpoint", endpoint, "--state-dir", jobs.state_dir, path })
    for line in told.stdout:gmatch "[^\n]+" do
      local event = dockrun.json.decode(line)
      if event.event == "started" then
        handle = event.message
        jobs.await_ready(event.alloc)
      end
    end
  end)
  after_each(function()
    process.run({ "stop", "--purge", "--endpoint", endpoint, "--state-dir", jobs.state_dir, name })
    assert.same({}, jobs.containers(engine, name))
  end)

  it("is the task's again, in any process", function()
    local driver <close> = assert(dockrun.driver(engine))
    local task = assert(driver:open(handle))
    assert.equal(handle, tostring(task))
    local result, err = task:wait(0.05)
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    local waiting = dockrun.spawn(task.wait, task, 120)
    assert(task:kill "SIGUSR1")
    assert.same({ exit_code = 9, oom = false }, waiting:await())
    assert.equal(9, task:wait().exit_code)
    assert.equal(9, assert(driver:open(handle)):wait(120).exit_code)  -- it ended before it was opened
  end)

  it("ends it as it wants to be ended", function()
    local driver <close> = assert(dockrun.driver(engine))
    local task = assert(driver:open(handle))
    assert(task:stop(120))
    assert.equal(4, task:wait(120).exit_code)
  end)

  it("that is none, or whose container is gone, is an error that says so", function()
    local driver <close> = assert(dockrun.driver(engine))
    for _, text in ipairs { "", "DOCKER:", "DOCKER:[]", "EXEC:{}", 'DOCKER:{"ImageID":"x"}' } do
      local task, err = driver:open(text)
      assert.is_nil(task)
      assert.equal("invalid", err.kind)
    end
    local _, err = driver:open('DOCKER:{"ImageID":"sha256:00","ContainerID":"' .. ("0"):rep(64) .. '"}')
    assert.equal(404, err.status)
  end)
end)
