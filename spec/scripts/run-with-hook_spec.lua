-- scripts/run-with-hook.lua, with jobs on a real engine.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("run-with-hook.lua", function()
  local IMAGE = "registry.example:5000/team/busybox:1"
  local shared, engine, name, path

  setup(function()
    shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    if not engine:image_inspect(IMAGE) then engines.image(shared, IMAGE) end
  end)

  before_each(function() name = jobs.unique "hooked" end)
  after_each(function()
    if path then os.remove(path) end
    for _, container in ipairs(jobs.containers(engine, name)) do
      engine:container_remove(container.Id, { force = true, v = true })
    end
  end)

  -- The arguments that run a job of one task with this shell command; options of the script come first.
  local function script(command, ...)
    path = jobs.write(jobs.text { name = name, image = IMAGE, command = command })
    local args = { "--endpoint", shared.endpoint, "--state-dir", jobs.state_dir, "scripts/run-with-hook.lua", ... }
    args[#args + 1] = path
    return args
  end

  -- The job's one container, once it runs.
  local function running()
    return eventually("the job's container runs", function()
      local container = jobs.containers(engine, name)[1]
      return container and container.State == "running" and container
    end)
  end

  it("labels the container with the user who started it and the time", function()
    local child <close> = process.start(script("exec sleep 600", "--owner", "ann"))
    local labels = running().Labels
    assert.equal("ann", labels.owner)
    local year, month, day, hour, minute, second = labels["started-at"]:match "^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)Z$"
    local utc = os.time(os.date "!*t")
    local at = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second, isdst = false }
    assert.is_near(utc, at, 30)
    assert.equal(name, labels["dockrun.job"])
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("takes the owner from the environment if no option names it", function()
    local child <close> = process.start(script "exec sleep 600", { env = { USER = "bob" } })
    assert.equal("bob", running().Labels.owner)
    child:kill "SIGTERM"
    child:wait()
  end)

  for _, case in ipairs {
    { "well", "exit 0", 0, "task ended with 0\n" },
    { "badly", "exit 7", 1, "task ended with 7\n" },
  } do
    local how, command, code, line = table.unpack(case)
    it("reports the end of a task that ended " .. how .. ", and leaves nothing", function()
      local result = process.run(script(command))
      assert.equal(code, result.code, result.stderr)
      assert.equal(line, result.stdout)
      assert.same({}, jobs.containers(engine, name))
    end)
  end

  for _, prefix in ipairs { "registry.example:5000", "registry.example:5000/", "registry.example:5000/team" } do
    it("allows an image below " .. prefix, function()
      local result = process.run(script("exit 0", "--registry", prefix))
      assert.equal(0, result.code, result.stderr)
    end)
  end

  for _, prefix in ipairs { "registry.example", "registry.example:5000/tea", "other.example" } do
    it("refuses an image that is not below " .. prefix .. ", once, and leaves nothing", function()
      local result = process.run(script("exit 0", "--registry", prefix))
      assert.equal(1, result.code)
      assert.equal("", result.stdout)
      assert.equal(1, select(2, result.stderr:gsub(IMAGE .. " is not from " .. prefix, "")), result.stderr)
      assert.same({}, jobs.containers(engine, name))
    end)
  end

  it("names the errors of a bad job file", function()
    path = jobs.write 'return job "x" { group "g" { task "t" { driver = "docker", config = { imgae = "y" } } } }'
    local result = jobs.dockrun(shared.endpoint, { "scripts/run-with-hook.lua", path })
    assert.equal(2, result.code)
    assert.matches("imgae", result.stderr)
  end)

  it("shows no control characters from the engine", function()
    local result = process.run(script("exit 0", "--registry", "no\27[31msuch"))
    assert.equal(1, result.code)
    assert.matches("is not from no\\x1b[31msuch", result.stderr, 1, true)
    assert.is_nil(result.stderr:find("\27", 1, true))
  end)

  it("refuses to run without a job", function()
    local result = process.run { "scripts/run-with-hook.lua" }
    assert.equal(2, result.code)
    assert.matches("missing argument 'job'", result.stderr)
  end)
end)
