-- dockrun adopt: containers of a state whose database was lost, on a real engine.
local commands = require "spec.commands"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local replay = require "spec.upgrade.replay"
local states = require "spec.states"
local store = require "dockrun.store"
local uv = require "luv"

describe("dockrun adopt", function()
  local engine, endpoint, name, path, made

  setup(function() engine, endpoint = engines.ready() end)

  before_each(function()
    states.begin()
    name, made = jobs.unique "lost", {}
    path = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600", task = 'kill_signal = "SIGKILL",',
      resources = 'memory = 32, network = { dynamic_ports = { "web" } }' })
  end)
  after_each(function()
    os.remove(path)
    commands.remove(engine, name, made)
    states.finish()
  end)

  local function dockrun_with(...) return commands.run(endpoint, ...) end
  local function succeeds(...) return commands.succeeds(endpoint, ...) end

  local function read(...) return assert(dockrun.json.decode(succeeds(...).stdout)) end

  local function lose()
    for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(states.path .. suffix) end
  end

  local function own() return jobs.containers(engine, name)[1] end

  -- A container of this state directory, with some labels changed.
  local function forge(changes)
    local alloc = ("f0e9ed-%x"):format(uv.hrtime())
    local labels = assert(engine:container_inspect(own().Id)).Config.Labels
    labels["dockrun.alloc"], labels["dockrun.alloc_dir"] = alloc, states.dir .. "/alloc/" .. alloc
    for key, value in pairs(changes) do labels["dockrun." .. key] = value(labels["dockrun." .. key], alloc) end
    local body = { Image = "busybox:1", Cmd = { "true" }, Labels = labels }
    made[#made + 1] = assert(engine:container_create { name = "task-" .. alloc, body = body }).Id
    return alloc
  end

  it("finds the containers of a lost state through a link to its directory too", function()
    succeeds("run", "-d", path)
    lose()
    local link = states.dir .. ".link"
    local _ <close> = setmetatable({}, { __close = function() os.remove(link) end })
    assert(uv.fs_symlink(states.dir, link))
    assert.equal(own().Id, read("adopt", "--json", "--yes", "--state-dir", link).adopted[1].container_id)
    succeeds("plan", path)
    succeeds("stop", name)
    assert.is_nil(uv.fs_scandir_next(assert(uv.fs_scandir(states.dir .. "/alloc"))))
  end)

  it("takes over the containers of a lost state, and the job continues unchanged", function()
    succeeds("run", "-d", path)
    local id = own().Id
    lose()
    local told = read("status", "--json").jobs
    assert.same({ name, "unowned", "unowned", id }, { told[1].name, told[1].status, told[1].tasks[1].state, told[1].tasks[1].container_id })
    assert.matches("unowned", succeeds("status", name).stdout)
    local stop = dockrun_with("stop", name)
    assert.equal(1, stop.code)
    assert.matches("dockrun adopt " .. name:gsub("%-", "%%-"), stop.stderr)
    local asked = dockrun_with("adopt")
    assert.equal(2, asked.code)
    assert.matches("%-%-yes", asked.stderr)
    local dry = read("adopt", "--dry-run", "--json", name)
    assert.same({ true, id }, { dry.dry_run, dry.adopted[1].container_id })
    assert.equal("unowned", read("status", "--json").jobs[1].status)
    assert.matches("no container to adopt", succeeds("adopt", "--yes", name .. "-other").stderr)

    assert.matches("adopting task%-", succeeds("adopt", "--yes").stdout)
    assert.equal("running", read("status", "--json").jobs[1].tasks[1].state)
    do
      local state <close> = assert(store.open(states.dir, { readonly = true }))
      assert.equal(1, #assert(state:leases()))
    end
    succeeds("plan", path)
    assert.matches("reattached", succeeds("run", "-d", "--json", path).stdout)
    assert.equal(id, own().Id)
    succeeds("stop", name)
    assert.is_nil(own())
    local state <close> = assert(store.open(states.dir, { readonly = true }))
    assert.same({ {}, {} }, { assert(state:leases()), assert(state:intents()) })
    assert.is_nil(uv.fs_scandir_next(assert(uv.fs_scandir(states.dir .. "/alloc"))))
  end)

  it("takes over the containers of an older version, with nothing to do for `plan`", function()
    local older <close> = replay.start(engine, endpoint, states.dir, "bb58faa")
    lose()
    local adopted = read("adopt", "--yes", "--json").adopted
    assert.equal(#older.containers, #adopted)
    for _, job_file in pairs(older.files) do succeeds("plan", job_file) end
    for _, job in pairs(older.jobs) do succeeds("stop", job) end
    for _, id in ipairs(older.containers) do assert.is_nil((engine:container_inspect(id))) end
  end)

  it("refuses labels that contradict themselves, the state or the agent's policy, and says why", function()
    succeeds("run", "-d", path)
    local function same(value) return value end
    local function definition(change)
      return { definition = function(text)
        local task = dockrun.json.decode(text)
        change(task)
        return dockrun.json.encode(task)
      end }
    end
    local cases = {
      { "has its place", { job = same } },
      { "not accepted", definition(function(task) task.config.privileged = true end) },
      { "not accepted", definition(function(task) task.config.volumes = { "/etc:/etc" } end) },
      { "not accepted", definition(function(task) task.kill_timeout = -1 end) },
      { "not accepted", definition(function(task) task.restart = 5 end) },
      { "not accepted", definition(function(task) task.lifecycle = { hook = "never" } end) },
    }
    for i, case in ipairs(cases) do
      if i > 1 then case[2].job = function() return name .. "-other" end end
      case.alloc = forge(case[2])
    end
    local told = read("adopt", "--yes", "--json")
    local reasons = {}
    for _, row in ipairs(told.refused) do reasons[row.alloc] = row.reason end
    for _, case in ipairs(cases) do assert.matches(case[1], reasons[case.alloc]) end
    assert.same({}, told.adopted)
    succeeds("stop", name)
    for _, id in ipairs(made) do assert.truthy(engine:container_inspect(id)) end
  end)

  it("does not restart tasks that have ended", function()
    succeeds("run", "-d", path)
    local id = own().Id
    assert(engine:container_kill(id))
    assert(engine:container_wait(id))
    lose()
    succeeds("adopt", "--yes", name)
    local job = read("status", "--json").jobs[1]
    assert.same({ "failed", 137 }, { job.tasks[1].state, job.tasks[1].exit_code })
    succeeds("stop", name)
    assert.is_nil(own())
  end)
end)
