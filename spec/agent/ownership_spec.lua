-- What is not this state's is never touched, whatever its labels say: on a real engine. `docker commit` of a task's container
-- and `docker run` of the image give a container with all of its labels.
local commands = require "spec.commands"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local states = require "spec.states"
local uv = require "luv"

describe("a container that this state did not record", function()
  local engine, endpoint, name, made, path

  setup(function() engine, endpoint = engines.ready() end)

  before_each(function()
    states.begin()
    name, made = jobs.unique "owned", {}
    path = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600", task = 'kill_signal = "SIGKILL",',
      config = 'network_mode = "none"', restart = 'attempts = 1, delay = "0s"' })
  end)
  after_each(function()
    os.remove(path)
    commands.remove(engine, name, made)
    states.finish()
  end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end
  local function succeeds(...) return commands.succeeds(endpoint, ...) end

  -- A container with these labels.
  local function create(labels, called)
    local one = assert(engine:container_create { name = called, body = {
      Image = "busybox:1", Cmd = { "sleep", "600" }, Labels = labels, StopSignal = "SIGKILL", HostConfig = { NetworkMode = "none" },
    } })
    made[#made + 1] = one.Id
    return one.Id
  end

  local function container(labels, called)
    local id = create(labels, called)
    assert(engine:container_start(id))
    return id
  end

  local function assert_runs(id) assert.equal("running", assert(engine:container_inspect(id)).State.Status) end

  local function own() return jobs.containers(engine, name)[1] end

  local function tasks()
    local list = {}
    for _, job in ipairs(assert(dockrun.json.decode(succeeds("status", "--json").stdout)).jobs) do
      for _, task in ipairs(job.tasks) do list[#list + 1] = { task.container_id, task.state } end
    end
    return list
  end

  local GC = { "gc", "--set", "gc.creation_grace=0", "--set", "gc.job_threshold=0" }

  it("is left alone if it is a copy of a task's container", function()
    succeeds("run", "-d", path)
    local mine = assert(engine:container_inspect(own().Id))
    local copy = container(mine.Config.Labels)
    assert.same({ { mine.Id, "running" } }, tasks())
    succeeds("plan", path)
    succeeds("run", "-d", path)
    succeeds(table.unpack(GC))
    assert.equal(mine.Id:sub(1, 12) .. "\n", succeeds("exec", name, "--", "hostname").stdout)
    assert.equal(1, #assert(dockrun.json.decode(succeeds("stats", "--json", name).stdout)).tasks)
    assert_runs(mine.Id)
    succeeds("stop", name)
    assert.is_nil((engine:container_inspect(mine.Id)))
    succeeds(table.unpack(GC))
    assert_runs(copy)
    assert.same({}, tasks())
    assert.matches("ignores container .-its name is not", succeeds("gc", "--dry-run", "-v").stdout)
  end)

  it("has its directory left alone, whatever its label names", function()
    local base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-other-XXXXXX"))
    local _ <close> = setmetatable({}, { __close = function() require("pl.dir").rmtree(base) end })
    local alloc = ("beef-%x"):format(uv.hrtime())
    assert(uv.fs_mkdir(base .. "/alloc", 511) and uv.fs_mkdir(base .. "/alloc/" .. alloc, 511))
    local labels
    do
      succeeds("run", "-d", path)
      labels = assert(engine:container_inspect(own().Id)).Config.Labels
      succeeds("stop", name)
    end
    for _, other in ipairs { base, states.dir .. "/../" .. base:match "[^/]+$" } do
      local root = other .. "/alloc/" .. alloc
      labels["dockrun.alloc"], labels["dockrun.alloc_dir"] = alloc, root
      local id = container(labels, "task-" .. alloc)
      dockrun_with("stop", name)
      succeeds(table.unpack(GC))
      dockrun_with("stop", "--purge", name)
      assert_runs(id)
      assert.truthy(uv.fs_stat(base .. "/alloc/" .. alloc))
      engine:container_remove(id, { force = true })
    end
  end)

  it("with labels that are missing, or of the wrong type, is in nobody's way", function()
    succeeds("run", "-d", path)
    local mine = own().Id
    local all, ids = assert(engine:container_inspect(mine)).Config.Labels, {}
    local wrong = { ["dockrun.job"] = "", ["dockrun.index"] = "-1", ["dockrun.ports"] = '[{"label":5}]', ["dockrun.definition"] = "[1]",
      ["dockrun.kill_timeout"] = "never", ["dockrun.alloc"] = "../../etc", ["dockrun.state"] = "" }
    ids[1] = create { ["dockrun.runtime"] = "" }
    ids[2] = create { ["dockrun.runtime"] = "x", ["dockrun.job"] = name }
    for label, value in pairs(wrong) do
      local missing, damaged = {}, {}
      for key, text in pairs(all) do
        missing[key], damaged[key] = key ~= label and text or nil, key == label and value or text
      end
      ids[#ids + 1], ids[#ids + 2] = create(missing), create(damaged)
    end
    assert.same({ { mine, "running" } }, tasks())
    for _, words in ipairs { { "status" }, { "gc", "--dry-run", "-v" }, GC, { "stats" }, { "logs", name },
      { "run", "-d", path }, { "adopt", "--yes" }, { "stop", name } } do succeeds(table.unpack(words)) end
    assert.is_nil((engine:container_inspect(mine)))
    for _, id in ipairs(ids) do assert.truthy(engine:container_inspect(id)) end
  end)

  it("is neither adopted by `run` nor ended by `stop` if it is another state directory's", function()
    succeeds("run", "-d", path)
    local theirs = own().Id
    local first = states.dir
    states.begin()
    assert.equal(1, dockrun_with("stop", name).code)
    assert.equal(1, dockrun_with("exec", name, "--", "true").code)
    succeeds("run", "-d", path)
    assert.equal(2, #jobs.containers(engine, name))
    assert.equal(1, #tasks())
    succeeds("stop", name)
    assert_runs(theirs)
    assert.same({ theirs }, { own().Id })
    states.finish()
    states.dir = first
    succeeds("stop", name)
    assert.same({}, jobs.containers(engine, name))
    states.begin()  -- for after_each
    require("pl.dir").rmtree(first)
  end)

  it("keeps a task's name that it took, and the task says who has it", function()
    succeeds("run", "-d", path)
    local mine = assert(engine:container_inspect(own().Id))
    assert(engine:container_remove(mine.Id, { force = true }))
    local thief = container(mine.Config.Labels, mine.Name:sub(2))
    local result = dockrun_with("run", "--json", path)
    assert.equal(1, result.code)
    assert.matches("belongs to container " .. thief:sub(1, 12), result.stdout)
    succeeds("stop", name)
    succeeds(table.unpack(GC))
    assert_runs(thief)
  end)
end)
