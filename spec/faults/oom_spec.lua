-- Memory runs out, at each point of a script and of a run in turn: a clean error, or success; never a crash, a report of the
-- sanitizers, or a container without a record. Only the build with sanitizers has the program (spec/faults/oom.c). With
-- FAULTS set, each point of the script is tried, and that many points of the run.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local process = require "spec.process"
local uv = require "luv"
local worlds = require "spec.faults.world"

local PROGRAM = process.program .. "-oom"
if not uv.fs_stat(PROGRAM) then return end

local FAULTS = tonumber(os.getenv "FAULTS")
local WIDTH = 3                          -- in parallel
local FOREVER = 1000000000               -- failing allocations: every later one
local ENDS = { [0] = true, [1] = true, [2] = true, [3] = true, [4] = true }

describe("memory that runs out", function()
  local counter

  before_each(function() counter = os.tmpname() end)
  after_each(function() os.remove(counter) end)

  local function count_of(run)
    run { DOCKRUN_OOM_CALLS = counter }
    local file <close> = assert(io.open(counter))
    return file:read "n"
  end

  -- Each point of `count`, or every `step`th, with several failures in a row: 2, because Lua tries an allocation twice.
  local function points(count, step)
    local list = {}
    for _, failures in ipairs { 1, 2, FOREVER } do
      for n = 1 + #list % step, count, step do list[#list + 1] = ("%d:%d"):format(n, failures) end
    end
    return list
  end

  local function try(list, flaw)
    local problems, at = {}, 0
    local function work()
      while list[at + 1] do
        at = at + 1
        local point = list[at]
        local why = flaw(point)
        if why then problems[#problems + 1] = ("DOCKRUN_OOM=%s: %s"):format(point, why) end
      end
    end
    local workers = {}
    for i = 1, WIDTH do workers[i] = work end
    dockrun.all(workers)
    assert(#problems == 0, ("%d of %d:\n%s"):format(#problems, #list, table.concat(problems, "\n")))
  end

  local function flaw_of(result)
    if not ENDS[result.code] or result.stderr:find "Sanitizer:" or result.stderr:find "PANIC" then
      return ("code %s\n%s%s"):format(result.code or result.signal, result.stdout, result.stderr)
    end
    if result.code ~= 0 and not result.stderr:find "memory" and not result.stdout:find "memory" then
      return ("code %d, and no word of memory: %s%s"):format(result.code, result.stdout, result.stderr)
    end
  end

  it("ends a script with an error, or lets it continue", function()
    local function run(env) return process.run({ "spec/faults/oom.lua" }, { program = PROGRAM, env = env }) end
    local count = count_of(run)
    assert.truthy(count > 1000)
    try(points(count, FAULTS and 1 or 97), function(point) return flaw_of(run { DOCKRUN_OOM = point }) end)
  end)

  it("is not reported as a fault of the JSON that is read or written", function()
    local result = process.run({ "-e", [=[
      local json = require "dockrun.core.json"
      local text = [[{"a":[1,12345678901234567],"b":{"c":"d"}}]]
      local function copy()
        local value, err = json.decode(text)
        return value and json.encode(value), err
      end
      for n = 1, math.huge do
        oom.fail(n, 2)
        local ok, value, err = pcall(copy)
        local calls = oom.calls()
        oom.fail(0)
        assert(value, err)
        assert(not ok and value:find "memory" or #value == #text and value:find("12345678901234567", 1, true), value)
        if calls < n then break end
      end]=] }, { program = PROGRAM })
    assert.equal(0, result.code, result.stderr)
  end)

  it("ends a call to the engine with an error, and the next call is answered", function()
    local result = process.run({ "-e", [[
      local dockrun = require "dockrun"
      local function calls_of(endpoint)
        local engine = assert(dockrun.connect { endpoint = endpoint, timeout = 60 })
        assert(engine:version())
        assert(engine:events { since = "1", ["until"] = "2" }):close()
      end
      for n = 1, math.huge do
        oom.fail(n, 2)
        local ok, err = pcall(calls_of, arg[1])
        local calls = oom.calls()
        oom.fail(0)
        assert(ok or tostring(err):find "memory", err)
        calls_of(arg[1])
        if calls < n then break end
      end]], engines.shared().endpoint }, { program = PROGRAM })
    assert.equal(0, result.code, result.stderr)
  end)

  it("ends a statement half way, and the database closes", function()
    local result = process.run({ "-e", [[
      local sqlite = require "dockrun.core.sqlite"
      for n = 1, math.huge do
        local db = assert(sqlite.open ":memory:")
        oom.fail(n, 2)
        pcall(db.rows, db, "SELECT * FROM pragma_table_list")
        local calls = oom.calls()
        oom.fail(0)
        db:close()
        if calls < n then break end
      end]] }, { program = PROGRAM })
    assert.equal(0, result.code, result.stderr)
  end)

  it("rolls back a transaction at any point, and leaves no lock", function()
    local result = process.run({ "-e", [[
      local database = require "dockrun.store.database"
      local path = os.tmpname()
      local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
      local ours, others = assert(database.open(path)), assert(database.open(path))
      assert(ours:exec "CREATE TABLE t (a)")
      local function put() return ours:run("INSERT INTO t VALUES (1)") end
      local function change()
        put()
        ours:transaction(put)
      end
      for n = 1, math.huge do
        oom.fail(n, 2)
        local ok, value = pcall(ours.transaction, ours, change)
        local calls = oom.calls()
        oom.fail(0)
        assert(others:exec "BEGIN IMMEDIATE; ROLLBACK")
        assert(others:value "SELECT count(*) FROM t" == (ok and value and 2 or 0))
        assert(ours:run "DELETE FROM t")
        assert(others:value "SELECT count(*) FROM t" == 0)
        if calls < n then break end
      end]] }, { program = PROGRAM })
    assert.equal(0, result.code, result.stderr)
  end)

  it("ends a run with an error, or lets it continue, and loses no container", function()
    local shared = engines.shared()
    engines.image(shared, "busybox:1")
    local function run(world, env)  -- a slow engine must not count as one that is away
      return world:run({ "run", "--json", "--set", "docker.timeout=60", world.job_file }, { program = PROGRAM, env = env })
    end
    local count = count_of(function(env)
      local world <close> = worlds.new(shared.endpoint)
      local result = run(world, env)
      assert.equal(0, result.code, result.stderr)
    end)
    try(points(count, math.max(1, 3 * count // (FAULTS or 24))), function(point)
      local world <close> = worlds.new(shared.endpoint)
      local result = run(world, { DOCKRUN_OOM = point })
      local why = flaw_of(result)
      if why then return why end
      if #world:leftovers() > 0 then  -- the run was cut off: as after a kill, the next process cleans up
        world:run { "stop", world.name }
        world:run { "gc", "--set", "gc.creation_grace=0" }
      end
      local left = world:leftovers()
      if #left > 0 then return table.concat(left, "; ") .. "\n" .. result.stdout .. result.stderr end
    end)
  end)
end)
