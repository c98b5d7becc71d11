-- dockrun gc: what no job owns any more, on a real engine; and what is none of its business.
local dockrun = require "dockrun"
local agents = require "spec.agent.agents"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local states = require "spec.states"
local store = require "dockrun.store"
local uv = require "luv"

describe("dockrun gc", function()
  local shared, engine, endpoint, made, networks

  setup(function()
    shared = engines.shared()
    endpoint = shared.endpoint
    engine = assert(dockrun.connect { endpoint = endpoint })
    engines.image(shared, "busybox:1")
  end)

  before_each(function()
    states.begin()
    made, networks = {}, {}
  end)
  after_each(function()
    for _, id in ipairs(made) do engine:container_remove(id, { force = true, v = true }) end
    for _, id in ipairs(networks) do engine:network_remove(id) end
    states.finish()
  end)

  -- Without grace, unless the spec is about that.
  local function gc(...)
    local result = process.run({ "gc", "--json", "--endpoint", endpoint, "--state-dir", states.dir, "--set", "gc.creation_grace=0",
      "--set", "docker.cleanup.image_delay=0", "--set", "gc.job_threshold=0", ... })
    assert.equal(0, result.code, result.stderr)
    local list = {}
    for i, one in ipairs(assert(dockrun.json.decode(result.stdout)).garbage) do
      list[i] = ("%s %s: %s"):format(one.kind, one.name, one.reason)
    end
    table.sort(list)
    return list
  end

  local function labels(state, alloc)
    return {
      ["dockrun.job"] = "gone", ["dockrun.group"] = "g", ["dockrun.task"] = "t", ["dockrun.index"] = "0",
      ["dockrun.alloc"] = alloc or "a-1", ["dockrun.runtime"] = "dockrun/0", ["dockrun.state"] = state,
    }
  end

  local function container(of)
    local one = assert(engine:container_create { name = jobs.unique "gc", body = { Image = "busybox:1", Cmd = { "true" }, Labels = of } })
    made[#made + 1] = one.Id
    return one.Id
  end

  local function is_there(id) return engine:container_inspect(id) ~= nil end

  local function own_id()
    local state <close> = assert(store.open(states.dir))
    return state.id
  end

  -- A task of the state that has ended, and what is to be removed of it.
  local function put_ended(id)
    local state <close> = assert(store.open(states.dir))
    states.put_alloc(state, "gone", "a-1")
    assert(state:put_task { alloc = "a-1", task = "t", state = "dead", container_id = id, detail = {} })
    return state:remove_job "gone"
  end

  it("removes a container that the state had recorded, once it is old enough; a dry run only says so", function()
    local id = container(labels(own_id()))
    put_ended(id)
    assert.same({}, gc("--set", "gc.creation_grace=1h"))
    assert.same({ "container t-a-1: no job owns it" }, gc "--dry-run")
    assert.is_true(is_there(id))
    assert.same({ "container t-a-1: no job owns it" }, gc())
    assert.is_false(is_there(id))
    assert.same({}, gc())
  end)

  it("forgets the container that it was to remove if another removed it", function()
    put_ended "c0ffee"
    assert.same({}, gc())
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.same({}, assert(state:intents()))
  end)

  it("removes the container of a task that has ended", function()
    local id = container(labels(own_id()))
    do
      local state <close> = assert(store.open(states.dir))
      states.put_alloc(state, "gone", "a-1")
      assert(state:put_task { alloc = "a-1", task = "t", state = "failed", container_id = id, detail = {} })
    end
    assert.same({ "container t-a-1: its task has ended" }, gc())
    assert.is_false(is_there(id))
    assert.same({ "job gone: it has ended" }, gc())
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.same({}, assert(state:intents()))
  end)

  it("leaves alone what others made: another tool, another state, a dockrun before states had names", function()
    local others = { container {}, container { ["dockrun.job"] = "mine" }, container(labels "ffff"), container(labels(nil)),
      container(labels(own_id())), container { ["dockrun.runtime"] = "" } }
    assert.same({}, gc())
    local told = process.run({ "gc", "--dry-run", "-v", "--endpoint", endpoint, "--state-dir", states.dir }).stdout
    for _, id in ipairs(others) do
      local found = assert(engine:container_inspect(id))
      local listed = told:find("ignores container " .. found.Name:sub(2) .. " (", 1, true) ~= nil
      assert.equal(found.Config.Labels["dockrun.runtime"] ~= nil, listed, told)
    end
    for _, id in ipairs(others) do assert.is_true(is_there(id)) end
  end)

  it("leaves a job alone that nobody watches just now", function()
    local name = jobs.unique "detached"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600",
      resources = 'memory = 32, network = { dynamic_ports = { "web" } }' })
    local _ <close> = file
    local function with(...) return process.run { "--endpoint", endpoint, "--state-dir", states.dir, ... } end
    assert.equal(0, with("run", "-d", path).code)
    assert.same({}, gc())
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.equal(1, #assert(state:leases()))
    assert.equal(1, #jobs.containers(engine, name))
    assert.equal(0, with("stop", name).code)
    assert.same({ ("job %s: it has ended"):format(name) }, gc())
    assert.same({}, assert(state:jobs()))
  end)

  it("removes directories and networks of allocations that are gone", function()
    local root = states.dir .. "/alloc/0000-dead"
    for _, path in ipairs { states.dir .. "/alloc", root, root .. "/alloc" } do assert(uv.fs_mkdir(path, tonumber("755", 8))) end
    local kept = states.dir .. "/alloc/not an allocation"
    assert(uv.fs_mkdir(kept, tonumber("755", 8)))
    do
      local state <close> = assert(store.open(states.dir))
      states.put_alloc(state, "gone", "0000-dead")
      assert(state:put_task { alloc = "0000-dead", task = "t", state = "dead", detail = {} })
    end
    local mine = assert(engine:network_create { body = { Name = jobs.unique "gc", Labels = labels(own_id(), "0000-dead") } })
    local other = assert(engine:network_create { body = { Name = jobs.unique "gc", Labels = labels "ffff" } })
    local forged = assert(engine:network_create { body = { Name = jobs.unique "gc", Labels = labels(own_id(), "0000-beef") } })
    networks = { mine.Id, other.Id, forged.Id }
    local list = gc()
    assert.equal(3, #list)
    assert.equal(("directory %s: no job owns it"):format(root), list[1])
    assert.equal("job gone: it has ended", list[2])
    assert.matches("^network gc%-.*: no job owns it", list[3])
    assert.is_nil(uv.fs_stat(root))
    assert.truthy(uv.fs_stat(kept))
    assert.is_nil((engine:network_inspect(mine.Id)))
    assert.truthy(engine:network_inspect(other.Id))
    assert.truthy(engine:network_inspect(forged.Id))
  end)

  describe("beside another process", function()
    local collector = require "dockrun.agent.gc"
    local agent

    before_each(function()
      agent = agents.new(endpoint, nil, { state_dir = states.dir, ["gc.creation_grace"] = 0, ["gc.job_threshold"] = 0 })
    end)
    after_each(function() agent:close() end)

    it("leaves a job that is submitted again before its removal", function()
      states.put_alloc(agent.state, "gone", "a-1")
      assert(agent.state:put_task { alloc = "a-1", task = "t", state = "dead", detail = {} })
      local list = assert(collector.find(agent))
      assert.equal("gone", list[1].name)
      states.put_alloc(agent.state, "gone", "a-2")
      assert(agent.state:put_task { alloc = "a-2", task = "t", state = "running", container_id = "c0ffee", detail = {} })
      assert(collector.collect(agent, list))
      assert.truthy((agent.state:job "gone"))
      assert.same({}, assert(agent.state:intents()))
    end)

    it("leaves the directory of an allocation that starts while it looks", function()
      local root = states.dir .. "/alloc/0000-beef"
      local real = agent.engine
      agent.engine = setmetatable({}, { __index = function(_, method)
        return function(_, ...)
          if method == "container_list" then
            states.put_alloc(agent.state, "new", "0000-beef")
            uv.fs_mkdir(states.dir .. "/alloc", tonumber("755", 8))
            uv.fs_mkdir(root, tonumber("755", 8))
          end
          return real[method](real, ...)
        end
      end })
      assert.same({}, assert(collector.find(agent)))
    end)
  end)

  it("removes an image that dockrun pulled and nothing uses, after a while, and no other", function()
    local reference = jobs.unique "gc-image" .. ":1"
    assert(engine:image_tag("busybox:1", { repo = reference:match "^[^:]+", tag = "1" }))
    do
      local state <close> = assert(store.open(states.dir))
      assert(state:put_image { reference = reference, id = assert(engine:image_inspect(reference)).Id })
    end
    assert.same({}, gc("--set", "docker.cleanup.image_delay=1h"))
    local user = assert(engine:container_create { body = { Image = reference, Cmd = { "true" } } })
    assert.same({}, gc())
    assert(engine:container_remove(user.Id))
    assert.same({ ("image %s: dockrun pulled it, and nothing uses it"):format(reference) }, gc())
    assert.is_nil((engine:image_inspect(reference)))
    assert.truthy(engine:image_inspect "busybox:1")
  end)

  it("leaves an image alone that another tool has put in the place of the one that dockrun pulled", function()
    local reference = jobs.unique "gc-image" .. ":1"
    assert(engine:image_tag("busybox:1", { repo = reference:match "^[^:]+", tag = "1" }))
    do
      local state <close> = assert(store.open(states.dir, { owner = { pid = 1, start = 0, boot = "another" } }))
      assert(state:put_image { reference = reference, id = "sha256:" .. ("0"):rep(64) })
      assert(state:intend("a-1", "t", "pull", { reference = "busybox:1", endpoint = "unix:///var/empty/other.sock" }))
    end
    assert.same({}, gc())
    assert.truthy(engine:image_inspect(reference))
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.same({}, assert(state:images()))
    assert(engine:image_remove(reference))
  end)

  it("leaves the ports alone of a job that runs on another engine", function()
    do
      local state <close> = assert(store.open(states.dir, { owner = { pid = 1, start = 0, boot = "another" } }))
      states.put_alloc(state, "elsewhere", "a-1")
      local job = assert(state:job "elsewhere")
      job.endpoint, job.status = "unix:///var/empty/other.sock", "running"
      assert(state:put_job(job))
      assert(state:put_task { alloc = "a-1", task = "t", state = "running", container_id = "beef", detail = {} })
      assert(state:lease { ip = "0.0.0.0", port = 20001, alloc = "a-1", task = "t" })
    end
    assert.same({}, gc())
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.equal(1, #assert(state:leases()))
  end)

  it("knows whose an image is that a killed process was pulling", function()
    local reference = jobs.unique "gc-pull" .. ":1"
    do
      local state = assert(store.open(states.dir, { owner = { pid = 1, start = 0, boot = "another" } }))
      assert(state:intend("a-1", "t", "pull", { reference = reference }))
      state:close()
    end
    assert(engine:image_tag("busybox:1", { repo = reference:match "^[^:]+", tag = "1" }))
    assert.same({ ("image %s: dockrun pulled it, and nothing uses it"):format(reference) }, gc())
    assert.is_nil((engine:image_inspect(reference)))
  end)

  it("takes back the ports of processes that have ended, but for those that a task's container has", function()
    container(labels("ffff", "a-1"))  -- as a copy of the task's container would be
    local runs = assert(engine:container_create { body = {
      Image = "busybox:1", Cmd = { "sleep", "600" }, Labels = labels("ffff", "a-2"),
    } }).Id
    made[#made + 1] = runs
    assert(engine:container_start(runs))
    do
      local state = assert(store.open(states.dir, { owner = { pid = 1, start = 0, boot = "another" } }))
      states.put_alloc(state, "mine", "a-1")
      states.put_alloc(state, "mine", "a-2")
      assert(state:put_task { alloc = "a-1", task = "t", state = "running", container_id = "c0ffee", detail = {} })
      assert(state:put_task { alloc = "a-2", task = "t", state = "running", container_id = runs, detail = {} })
      assert(state:lease { ip = "0.0.0.0", port = 20001, alloc = "a-1", task = "t" })
      assert(state:lease { ip = "0.0.0.0", port = 20002, alloc = "a-2", task = "t" })
      state:close()
    end
    gc()
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    local left = assert(state:leases())
    assert.same({ 1, 20002 }, { #left, left[1].port })
  end)
end)
