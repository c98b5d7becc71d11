-- Every event that a task can tell of, with the fields that belong to it, on a real engine.
local agents = require "spec.agent.agents"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"

describe("the events of a task", function()
  local engine, endpoint
  local told = {}  -- by name: the first event of it

  -- Runs a job in one process; `at` may act on the agent once it was submitted.
  local function run(fields, hooks, at)
    local agent <close> = agents.new(endpoint, hooks)
    local job = agents.job(fields)
    agent:submit(job)
    if at then at(agent, agent.tasks[1]) end
    agent:wait()
    assert.same({}, jobs.containers(engine, job.name))
    for _, event in ipairs(agent.told) do told[event.event] = told[event.event] or event end
    return agent.told
  end

  setup(function()
    engine, endpoint = engines.ready()
    run({
      command = ("(x=a; while :; do x=$x$x; done); %s; exit 4"):format(jobs.gate "told"), restart = [[attempts = 1, delay = "20ms"]],
      resources = [[memory = 8, network = { dynamic_ports = { "web" } }]],
      task = [[check = { type = "lua", interval = "50ms", run = (function()
        local looks = 0
        return function() looks = looks + 1 return looks % 2 == 1, "look " .. looks end
      end)() },]],
    }, { started = function() return false, "heard" end }, function(agent, task)
      eventually("it was unhealthy and out of memory", function()
        local names = agents.names(agent.told)
        return names:find "unhealthy" and names:find "oom"
      end)
      jobs.open(task.alloc_id, "told")
    end)
    run({ command = "exec sleep 600" }, nil, function(agent, task)
      while not task.watching do dockrun.sleep(0.02) end
      agent:stop_job(nil, "the spec")
    end)
    run { image = "127.0.0.1:9/none:1" }
  end)

  local function is_id(value) return type(value) == "string" and #value == 64 end
  local function is_image(value) return type(value) == "string" and value:find "^sha256:" ~= nil end

  local fields = {
    received = {}, setup = { ports = function(value) return #value == 1 end },
    pulling = { message = function(value) return value == "127.0.0.1:9/none:1" end },
    pulled = { image_id = is_image, message = function(value) return value == "busybox:1" end },
    created = { container_id = is_id, image_id = is_image },
    started = { container_id = is_id, image_id = is_image, message = function(value) return value:find "^DOCKER:" end,
      ports = function(value)
        local port = value[1]
        return port.label == "web" and port.host_port == port.container_port and #port.protocols == 2 and port.ip ~= nil
      end },
    healthy = { container_id = is_id },
    unhealthy = { container_id = is_id, message = function(value) return value:find "look 2" end },
    oom = { container_id = is_id, oom = function(value) return value == true end },
    exited = { container_id = is_id, exit_code = function(value) return value == 4 end, oom = function(value) return value == true end },
    restarting = { delay = function(value) return value >= 0.02 and value <= 0.025 end, message = function(value) return value ~= "" end },
    not_restarting = { message = function(value) return value:find "more than 1 restarts" end },
    killing = { container_id = is_id, message = function(value) return value == "the spec" end },
    killed = { container_id = is_id }, removed = { container_id = is_id },
    hook_failed = { message = function(value) return value:find "heard" end },
    failed = { message = function(value) return value:find "exit code 4" end },
  }

  for name, wanted in pairs(fields) do
    it(("tell of '%s', with what belongs to it"):format(name), function()
      local event = assert.is_table(told[name]) and told[name]
      for _, key in ipairs { "job", "group", "task", "alloc" } do assert.is_string(event[key]) end
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d%d%d%d%d%d%dZ$", event.time)
      for key, holds in pairs(wanted) do
        assert.is_not_nil(event[key], key .. " is not told")
        assert.truthy(holds(event[key]), ("%s is %s"):format(key, dockrun.json.encode { event[key] }))
      end
    end)
  end

  it("tell where an error of dockrun's own code is", function()
    local env = require "dockrun.task.env"
    local build = env.build
    local _ <close> = setmetatable({}, { __close = function() env.build = build end })
    function env.build()
      for _ in ipairs(nil) do error "not here" end
    end
    local list = run { command = "true" }
    local failed = list[#list]
    assert.equal("failed", failed.event)
    assert.matches("^internal error at .*events_spec%.lua:%d+: attempt to index a nil value", failed.message)
    assert.matches("stack traceback:.*events_spec%.lua:%d+", failed.traceback)
  end)

  it("come in the order of its life", function()
    local list = agents.names(run { command = "true" })
    assert.equal("received setup pulled created started exited removed", list)
  end)
end)
