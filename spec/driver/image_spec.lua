-- Where a task's image comes from, and what becomes of a leftover container of its name.
local dockrun = require "dockrun"
local driver = require "dockrun.driver.docker"
local labels = require "dockrun.driver.labels"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

describe("a task's image", function()
  local engine, endpoint, shared, registry

  setup(function()
    shared, registry = engines.shared(), engines.registry().address
    endpoint = shared.endpoint
    engine = assert(dockrun.connect { endpoint = endpoint })
    engines.image(shared, "busybox:1")
  end)

  -- Puts an image with this label into the registry, and leaves the engine without it.
  local function push(reference, label)
    engines.image(shared, reference, { changes = { "LABEL made=" .. label } })
    for line in assert(engine:image_push((reference:gsub(":1$", "")), { tag = "1" })) do assert(not line.error, line.error) end
    assert(engine:image_remove(reference))
  end

  local function run(name, reference, config)
    return jobs.run(endpoint, jobs.text {
      name = name, image = reference, command = "true", config = config,
    }, { "--set", "docker.cleanup.image=false" })
  end

  local function label_of(reference) return assert(engine:image_inspect(reference)).Config.Labels.made end

  describe("that a job still uses", function()
    local reference, names

    -- Runs a job and leaves it; `second` makes its text another one.
    local function leave(name, second, args)
      local path, file = jobs.write(jobs.text {
        name = name, image = reference, command = second and "exec sleep 601" or "exec sleep 600",
      })
      local _ <close> = file
      names[name] = true
      local result = jobs.dockrun(endpoint, { "run", "-d", "--json", path, table.unpack(args or {}) })
      assert.equal(0, result.code, result.stderr)
      return result.stdout
    end

    local function stop(name) return jobs.dockrun(endpoint, { "stop", "--json", name }) end

    before_each(function()
      reference, names = ("%s/%s:1"):format(registry, jobs.unique "used"), {}
      push(reference, "used")
    end)
    after_each(function()
      for name in pairs(names) do stop(name) end
      assert.is_nil((engine:image_inspect(reference)))
    end)

    it("stays when the job is run again with another text, and goes with the job", function()
      local name = jobs.unique "again"
      assert.truthy(leave(name):find '"event":"pulling"')
      for i = 1, 4 do
        local told = leave(name, i % 2 == 1)
        assert.truthy(told:find '"event":"created"')
        assert.is_nil(told:find '"event":"image_removed"', told)
        assert.is_nil(told:find '"event":"pulling"', told)
      end
      assert.truthy(stop(name).stdout:find '"event":"image_removed"')
    end)

    it("stays when another job that used it stops while no container of the first is there", function()
      local name, other = jobs.unique "first", jobs.unique "other"
      leave(name)
      leave(other)
      -- Between the old allocation, all of which is gone, and the new one.
      local path, file = jobs.write(([[return { stopped = function()
        local said = io.popen("%s --endpoint %s --state-dir %s stop --json %s 2>&1"):read "a"
        assert(said:find '"event":"removed"' and not said:find '"event":"image_removed"', said)
      end }]]):format(process.program, endpoint, jobs.state_dir, other))
      local _ <close> = file
      local told = leave(name, true, { "--hooks", path })
      assert.is_nil(told:find '"event":"hook_failed"', told)
      assert.is_nil(told:find '"event":"pulling"', told)
    end)

    it("is pulled once more if it is removed before the container is made", function()
      local path, file = jobs.write(([[return { create = function()
        assert(require("dockrun").connect { endpoint = %q }:image_remove(%q))
      end }]]):format(endpoint, reference))
      local _ <close> = file
      local told = leave(jobs.unique "late", false, { "--hooks", path })
      assert.equal(2, select(2, told:gsub('"event":"pulling"', "")))
    end)
  end)

  it("is pulled anew with force_pull, and only then", function()
    local reference = ("%s/%s:1"):format(registry, jobs.unique "force")
    push(reference, "old")
    assert.equal(0, run("a", reference).code)
    engines.image(shared, "dockrun-spec-keep:1") -- the layers stay, and the tag is left to the registry
    assert(engine:image_tag(reference, { repo = "dockrun-spec-kept", tag = "1" }))
    push(reference, "new")
    assert(engine:image_tag("dockrun-spec-kept:1", { repo = reference:match "^(.+):1$", tag = "1" }))
    assert.equal(0, run("b", reference).code)
    assert.equal("old", label_of(reference))
    assert.equal(0, run("c", reference, "force_pull = true").code)
    assert.equal("new", label_of(reference))
    for _, one in ipairs { reference, "dockrun-spec-kept:1", "dockrun-spec-keep:1" } do engine:image_remove(one) end
  end)

  it("fails with force_pull if it cannot be pulled, even if the host has one", function()
    local reference = "127.0.0.1:1/here:1"
    assert(engine:image_tag("busybox:1", { repo = "127.0.0.1:1/here", tag = "1" }))
    local result = run("a", reference, "force_pull = true")
    assert.equal(1, result.code)
    assert.truthy(result.by.failed.message:find("cannot pull " .. reference, 1, true), result.by.failed.message)
    assert(engine:image_remove(reference))
  end)

  it("is waited for as long as image_pull_timeout says, by each task for itself", function()
    local server = uv.new_tcp() -- a registry that says nothing
    local held = {}
    assert(server:bind("127.0.0.1", 0))
    server:listen(8, function()
      held[#held + 1] = uv.new_tcp()
      server:accept(held[#held])
    end)
    local reference = ("127.0.0.1:%d/slow:1"):format(server:getsockname().port)
    local result = jobs.run(endpoint, ([[
local function one(name, patience)
  return task(name) { driver = "docker", config = { image = %q, command = "true", image_pull_timeout = patience } }
end
return job %q { type = "batch", group "a" { restart = { attempts = 0 }, one("short", "1s") },
  group "b" { restart = { attempts = 0 }, one("long", "2500ms") } }]]):format(reference, jobs.unique "slow"))
    for _, socket in ipairs(held) do socket:close() end
    server:close()
    assert.equal(1, result.code)
    local at = {}
    for _, event in ipairs(result.events) do
      if event.event == "failed" then
        local seconds = event.task == "short" and "1" or "2.5"
        assert.truthy(event.message:find(("not done after %s s (image_pull_timeout)"):format(seconds), 1, true), event.message)
        at[#at + 1] = event.task
      end
    end
    assert.same({ "short", "long" }, at)
  end)

  it("must be in the archive that load names", function()
    local stream <close> = assert(engine:image_save "busybox:1")
    local pieces = {}
    for piece in stream do pieces[#pieces + 1] = piece end
    local path, archive = jobs.write(table.concat(pieces), ".tar")
    local _ <close> = archive
    local hooks, file = jobs.write(([[
return { pull = function(task)
  local source <close> = assert(io.open(%q, "rb"))
  local target <close> = assert(io.open(("%%s/alloc/%%s/task/local/image.tar"):format(%q, task.alloc.id), "wb"))
  target:write(source:read "a")
end }]]):format(path, jobs.state_dir))
    local _ <close> = file
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "load", image = "dockrun-spec-absent:1", command = "true", config = "load = 'image.tar'",
    }, { "--hooks", hooks })
    assert.equal(1, result.code)
    assert.equal("config.load: expected dockrun-spec-absent:1 in the archive, got busybox:1", result.by.failed.message)
  end)

  it("cannot be loaded from an archive that is not there", function()
    local result = run(jobs.unique "load", "dockrun-spec-absent:1", "load = 'image.tar'")
    assert.equal(1, result.code)
    assert.equal("config.load: cannot open 'image.tar': it does not exist", result.by.failed.message)
  end)
end)

describe("a leftover container", function()
  local engine, name, body

  setup(function()
    local shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
  end)

  before_each(function()
    name = jobs.unique "left"
    body = { Image = "busybox:1", Cmd = { "true" }, Labels = { [labels.key.intent] = "a110c" } }
  end)

  after_each(function() engine:container_remove(name, { force = true }) end)

  it("of the task's name is removed", function()
    local old = assert(driver.create(engine, name, body))
    local new = assert(driver.create(engine, name, body, 1))
    assert.not_equal(old, new)
    assert.is_nil((engine:container_inspect(old)))
  end)

  it("that comes back is removed container_exists_attempts times", function()
    local removals = 0
    local stubborn = setmetatable({
      container_create = function() return nil, dockrun.error("engine", "in use", { status = 409 }) end,
      container_inspect = function() return { Id = "x", Config = { Labels = body.Labels } } end,
      container_remove = function()
        removals = removals + 1
        return true
      end,
    }, {})
    local id, err = driver.create(stubborn, name, body, 3)
    assert.is_nil(id)
    assert.same({ 409, 3 }, { err.status, removals })
  end)

  it("that came of no intent, or of another, stays, and its name is taken", function()
    for _, carried in ipairs { {}, { [labels.key.alloc] = "a110c" }, { [labels.key.intent] = "a110d" } } do
      local theirs = assert(engine:container_create { name = name, body = { Image = "busybox:1", Cmd = { "true" }, Labels = carried } }).Id
      for _, own in ipairs { body, { Image = "busybox:1", Cmd = { "true" } } } do
        local id, err = driver.create(engine, name, own)
        assert.is_nil(id)
        assert.equal("taken", err.kind)
        assert.truthy(err.message:find(theirs:sub(1, 12), 1, true), err.message)
      end
      assert(engine:container_inspect(theirs))
      engine:container_remove(name, { force = true })
    end
  end)
end)
