local dockrun = require "dockrun"
local eventually = require "spec.eventually"
local owner = require "dockrun.store.owner"
local process = require "spec.process"
local states = require "spec.states"
local store = require "dockrun.store"
local uv = require "luv"
local time = require "dockrun.util.time"

local function mode(path) return ("%o"):format(uv.fs_stat(path).mode & tonumber("777", 8)) end

local function names(list, key)
  local found = {}
  for i, each in ipairs(list) do found[i] = each[key] end
  return found
end

local function event(name, fields)
  local all = { time = time.format(), job = "cache", group = "redis", task = "redis", alloc = "a1", event = name }
  for key, value in pairs(fields or {}) do all[key] = value end
  return all
end

describe("the state", function()
  before_each(states.begin)
  after_each(states.finish)

  describe("keeps over a restart", function()
    -- What a new store of the same directory reads.
    local function reopened(state)
      state:close()
      return assert(states.open())
    end

    it("a job, as it was put last", function()
      local state = states.open()
      local definition = { name = "cache", groups = dockrun.json.array { { name = "redis", count = 2 } } }
      assert(state:put_job { name = "cache", definition = { name = "old" }, status = "pending" })
      assert(state:put_job { name = "cache", definition = definition, status = "running", submitted_at = "then" })
      state = reopened(state)
      local job = state:job "cache"
      assert.same({ name = "cache", definition = definition, status = "running", submitted_at = "then" }, job)
      assert.same({ job }, state:jobs())
      assert.is_nil(state:job "other")
    end)

    it("an allocation, with the process that has put it", function()
      local state = states.open()
      states.put_alloc(state)
      assert(state:put_alloc { id = "a1", job = "cache", group = "redis", index = 3, meta = { owner = "platform" } })
      state = reopened(state)
      assert.same({ id = "a1", job = "cache", group = "redis", index = 3, meta = { owner = "platform" }, owner = state.owner },
        state:alloc "a1")
      assert.equal(uv.os_getpid(), state:alloc("a1").owner.pid)
      assert.is_true(owner.is_alive(state:alloc("a1").owner))
    end)

    it("every field of a task, and where it belongs", function()
      local state = states.open()
      local task = {
        alloc = states.put_alloc(state), task = "redis", state = "running", container_id = "c0ffee", image = "redis:7",
        image_id = "sha256:7", ports = { { label = "db", host_port = 20001 } }, exit_code = 0, signal = 9, oom = false,
        restarts = 4, restart_count = 1, restart_since = 1732442402.25, started_at = time.format(), finished_at = "later",
        definition = { config = { image = "redis:7" } }, detail = { note = "Größe" },
      }
      assert(state:put_task(task))
      state = reopened(state)
      task.job, task.group, task.index = "cache", "redis", 0
      assert.same(task, state:task("a1", "redis"))
      assert.same({ task }, state:tasks())
      assert(state:put_task(state:task("a1", "redis")))
      assert.same(task, state:task("a1", "redis"))
    end)

    it("what was begun, until it is done", function()
      local state = states.open()
      local first = state:intend("a1", "redis", "create", { name = "redis-a1" })
      local second = state:intend("a1", "redis", "start")
      assert.is_true(second > first)
      assert.is_true(state:done(first))
      state = reopened(state)
      local left = state:intents()
      assert.equal(1, #left)
      assert.same({ id = second, alloc = "a1", task = "redis", action = "start", at = left[1].at, owner = state.owner }, left[1])
      assert.is_false(state:done(first))
      assert.is_true(state:intend("a1", "redis", "stop", { id = "c0ffee" }) > second)
      assert.same({ id = "c0ffee" }, state:intents()[2].data)
    end)

    it("the images that were pulled", function()
      local state = states.open()
      assert(state:put_image { reference = "redis:7", id = "sha256:7", pulled_at = "then", last_used_at = "now" })
      assert(state:put_image { reference = "busybox:1", id = "sha256:1" })
      state = reopened(state)
      assert.same({ "busybox:1", "redis:7" }, names(state:images(), "reference"))
      assert.same({ reference = "redis:7", id = "sha256:7", pulled_at = "then", last_used_at = "now" }, state:images()[2])
      assert.is_true(state:forget_image "redis:7")
      assert.is_false(state:forget_image "redis:7")
      assert.same({ "busybox:1" }, names(state:images(), "reference"))
    end)

    it("events, with all their fields", function()
      local state = states.open()
      local id = assert(state:add_event(event("started", { ports = dockrun.json.array {}, delay = 0.5 })))
      state = reopened(state)
      local kept = state:events()
      assert.same({ { id = id, time = kept[1].time, job = "cache", group = "redis", task = "redis", alloc = "a1", event = "started",
        ports = {}, delay = 0.5 } }, kept)
    end)
  end)

  it("forgets what a new record of a task leaves out", function()
    local state = states.open()
    local alloc = states.put_alloc(state)
    assert(state:put_task { alloc = alloc, task = "redis", state = "dead", exit_code = 3 })
    assert(state:put_task { alloc = alloc, task = "redis", state = "running" })
    assert.is_nil(state:task(alloc, "redis").exit_code)
  end)

  it("removes a job with its allocations and tasks, and no other's", function()
    local state = states.open()
    for _, job in ipairs { "cache", "web" } do
      local alloc = states.put_alloc(state, job, "of-" .. job)
      for _, task in ipairs { "one", "two" } do assert(state:put_task { alloc = alloc, task = task, state = "running" }) end
    end
    assert.same({ "one", "two" }, names(state:tasks { job = "cache" }, "task"))
    assert.same({ "of-cache" }, names(state:allocs { job = "cache" }, "id"))
    assert.is_true(state:remove_job "cache")
    assert.is_false(state:remove_job "cache")
    assert.same({ "of-web", "of-web" }, names(state:tasks(), "alloc"))
    assert.same({ "one", "two" }, names(state:tasks { alloc = "of-web" }, "task"))
    assert.is_true(state:remove_alloc "of-web")
    assert.same({}, state:tasks())
    assert.same({ "web" }, names(state:jobs(), "name"))
  end)

  it("refuses a task without its allocation, and a field without a column", function()
    local state = states.open()
    local ok, err = state:put_task { alloc = "nowhere", task = "redis", state = "running" }
    assert.is_nil(ok)
    assert.equal("constraint", err.kind)
    assert.has_error(function() state:put_task { alloc = "a1", task = "redis", stat = "running" } end)
  end)

  describe("of events", function()
    it("gives those of a job, after an id, and the last so many", function()
      local state, ids = states.open(), {}
      for i = 1, 6 do ids[i] = assert(state:add_event(event("e" .. i, { job = i % 2 == 0 and "even" or "odd" }))) end
      assert.same({ "e2", "e4", "e6" }, names(state:events { job = "even" }, "event"))
      assert.same({ "e5", "e6" }, names(state:events { after = ids[4] }, "event"))
      assert.same({ "e3", "e5" }, names(state:events { job = "odd", limit = 2 }, "event"))
      assert.same({}, state:events { after = ids[6] })
    end)

    it("keeps the last so many, and never gives an id twice", function()
      local state = states.open { keep_events = 5 }
      local last
      for i = 1, 12 do last = assert(state:add_event(event("e" .. i))) end
      assert.same({ "e8", "e9", "e10", "e11", "e12" }, names(state:events(), "event"))
      assert.equal(last + 1, state:add_event(event "e13"))
    end)

    it("follows what is added, by this store too, until it is closed", function()
      local state, other, seen = states.open(), states.open(), {}
      local first = assert(state:add_event(event "one"))
      assert(state:add_event(event("theirs", { job = "web" })))
      local follower = dockrun.spawn(function()
        for each in state:follow(first - 1, { job = "cache" }) do seen[#seen + 1] = each.event end
      end)
      local from_now = dockrun.spawn(function() return state:follow()().event end)
      dockrun.sleep(0.05)
      assert(state:add_event(event "two"))
      assert(other:add_event(event "three"))
      eventually("it followed three events", function() return #seen >= 3 end)
      assert.same({ "one", "two", "three" }, seen)
      assert.equal("two", from_now:await())
      state:close()
      follower:await()
    end)
  end)

  describe("in a transaction", function()
    local function put(state, name) return assert(state:put_job { name = name, definition = {}, status = "running" }) end

    it("is written wholly, with what the function returns", function()
      local state = states.open()
      assert.same({ "a", 2 }, { state:transaction(function()
        put(state, "one")
        put(state, "two")
        return "a", 2
      end) })
      assert.is_true(state:transaction(function() end))
      assert.same({ "one", "two" }, names(states.open():jobs(), "name"))
    end)

    it("is rolled back if the function raises, and the error is passed on", function()
      local state = states.open()
      local ok, err = pcall(state.transaction, state, function()
        put(state, "one")
        error({ kind = "mine" })
      end)
      assert.is_false(ok)
      assert.equal("mine", err.kind)
      assert.same({}, state:jobs())
      assert.is_true(put(state, "next"))
    end)

    it("is rolled back if the function returns an error", function()
      local state = states.open()
      local ok, err = state:transaction(function()
        put(state, "one")
        return nil, "no"
      end)
      assert.is_nil(ok)
      assert.equal("no", err)
      assert.same({}, state:jobs())
    end)

    it("is rolled back if a call in it failed, even if the error is ignored", function()
      local state = states.open()
      local ok, err = state:transaction(function()
        put(state, "one")
        state:put_task { alloc = "nowhere", task = "redis", state = "running" }
        state:put_job { name = "two", definition = {}, status = "running" }
      end)
      assert.is_nil(ok)
      assert.equal("constraint", err.kind)
      assert.same({}, state:jobs())
    end)

    it("within another is a part of it", function()
      local state = states.open()
      assert(state:transaction(function()
        put(state, "outer")
        state:transaction(function()
          put(state, "undone")
          return nil, "no"
        end)
        assert(state:transaction(function() put(state, "inner") end))
      end))
      assert.same({ "inner", "outer" }, names(state:jobs(), "name"))
      pcall(state.transaction, state, function()
        state:transaction(function() put(state, "inner too") end)
        error "no"
      end)
      assert.same({ "inner", "outer" }, names(state:jobs(), "name"))
    end)

    it("takes nothing of another coroutine in, which would be undone with it", function()
      local state = states.open()
      local go = dockrun.queue()
      local waiting = dockrun.spawn(function() state:transaction(function() go:pop() end) end)
      dockrun.sleep(0)
      assert.has_error(function() put(state, "one") end)
      go:push(true)
      waiting:await()
      assert.is_true(put(state, "one"))
    end)

    it("is rolled back by a signal at any moment, and leaves no lock", function()
      local child <close> = process.start { "-e", ([[
        local store = require "dockrun.store"
        local ours, others = assert(store.open(%q)), assert(store.open(%q))
        io.stdout:setvbuf "no"
        for i = 1, 200 do
          local ok, err = pcall(function()
            print("ready " .. i)
            for n = 1, math.huge do
              ours:transaction(function()
                ours:put_job { name = "first", definition = { n = i + n }, status = "running" }
                ours:put_job { name = "second", definition = { n = i + n }, status = "running" }
              end)
            end
          end)
          assert(not ok and err.signal == "SIGINT", err)
          local first, second = others:job "first", others:job "second"
          assert(not first and not second or first.definition.n == second.definition.n)
          assert(others:put_job { name = "other", definition = {}, status = "running" })
          assert(ours:put_job { name = "other", definition = { i = i }, status = "running" })
          assert(others:job "other".definition.i == i)
        end]]):format(states.dir, states.dir) }
      for line in child:lines() do
        assert.matches("ready", line)
        child:kill "SIGINT"
      end
      assert.same({ 0, "" }, { child:wait().code, child.stderr })
    end)

    it("reads one moment if it is read-only", function()
      local writer = states.open()
      put(writer, "one")
      local reader = states.open { readonly = true }
      reader:transaction(function()
        assert.equal(1, #reader:jobs())
        put(writer, "two")
        assert.equal(1, #reader:jobs())
      end)
      assert.equal(2, #reader:jobs())
    end)
  end)

  describe("on the disk", function()
    it("is nobody else's to read, in a directory that is made", function()
      states.dir = states.dir .. "/var/lib"
      local state <close> = assert(store.open(states.dir .. "/"))
      assert(state:put_image { reference = "redis:7", id = "sha256:7" })
      assert.equal("700", mode(states.dir))
      for _, ending in ipairs { "", "-wal", "-shm" } do assert.equal("600", mode(states.dir .. "/state.db" .. ending)) end
      assert.equal(("state (%s/state.db)"):format(states.dir), tostring(state))
      states.dir = states.dir:gsub("/var/lib$", "")
    end)

    it("cannot be made in a directory that cannot be written to, and the error names it", function()
      local state, err = store.open "/proc/none"
      assert.is_nil(state)
      assert.truthy(tostring(err):find("/proc/none", 1, true), tostring(err))
      assert(io.open(states.dir .. "/file", "w")):close()
      state, err = store.open(states.dir .. "/file")
      assert.is_nil(state)
      assert.truthy(tostring(err):find(states.dir .. "/file", 1, true), tostring(err))
    end)
  end)

  it("is opened, made and written by many processes at once", function()
    local children = {}
    for i = 1, 12 do
      children[i] = process.start({ "-e", [[
        local state = assert(require("dockrun.store").open(arg[1]))
        for i = 1, 20 do
          assert(state:put_job { name = arg[2] .. "-" .. i, definition = {}, status = "running" })
          assert(state:add_event { time = "now", job = arg[2], event = "e" })
        end
        state:close()
      ]], states.dir, "job" .. i })
    end
    for _, child in ipairs(children) do
      local result = child:wait()
      assert.equal(0, result.code, result.stderr)
    end
    local state = assert(states.open())
    assert.same({ 240, 240 }, { #assert(state:jobs()), #assert(state:events()) })
    assert.equal("ok", state.db:value "PRAGMA integrity_check")
  end)

  describe("only to be read", function()
    it("is not made if there is none", function()
      local state, err = states.open { readonly = true }
      assert.is_nil(state)
      assert.equal("missing", err.kind)
      assert.is_nil((uv.fs_stat(states.path)))
    end)

    it("gives what is there, and takes nothing", function()
      states.put_alloc(states.open())
      local state = assert(states.open { readonly = true })
      assert.same({ "cache" }, names(state:jobs(), "name"))
      local ok, err = state:remove_job "cache"
      assert.is_nil(ok)
      assert.equal("readonly", err.kind)
      assert.equal(1, #state:jobs())
    end)
  end)

  describe("of another version", function()
    -- Opening it fails with an error that says all the parts, and no byte of it changes.
    local function refused(opts, kind, ...)
      local before = states.bytes(states.path)
      local state, err = states.open(opts)
      assert.is_nil(state)
      assert.equal(kind, err.kind)
      for _, part in ipairs { ... } do assert.truthy(tostring(err):find(part, 1, true), tostring(err)) end
      assert.is_true(before == states.bytes(states.path), "the file has changed")
    end

    local function write_first_version() states.sql(states.bytes "spec/store/schema-1.sql") end

    it("is brought up to date with all that it held, once", function()
      write_first_version()
      local state = assert(states.open())
      assert.equal("cache", state:job("cache").definition.name)
      assert.same({ owner = "platform" }, state:alloc("a1").meta)
      assert.same({ pid = 4242, start = 1000, boot = "0f1e" }, state:alloc("a1").owner)
      local task = state:task("a1", "redis")
      assert.same({ "running", "c0ffee", 2, false, 20001 },
        { task.state, task.container_id, task.restarts, task.oom, task.ports[1].host_port })
      assert.same({ 20001 }, names(state:leases(), "port"))
      assert.same({ "redis:7" }, names(state:images(), "reference"))
      assert.same({ 7 }, names(state:events(), "id"))
      task.restart_count, task.restart_since = 1, 12.5
      assert(state:put_task(task))
      assert(state:intend("a1", "redis", "stop"))
      state:close()
      state = assert(states.open())
      assert.equal(12.5, state:task("a1", "redis").restart_since)
      assert.equal(1, #state:intents())
    end)

    it("is not changed if it is older and opened read-only", function()
      write_first_version()
      refused({ readonly = true }, "store", states.path, "older dockrun (schema version 1")
    end)

    it("is not changed if it is newer", function()
      states.open():close()
      states.sql "PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)"
      refused(nil, "store", states.path, "newer dockrun (schema version 99", "--state-dir")
      refused({ readonly = true }, "store", "newer dockrun")
    end)

    it("is not changed if it is another program's", function()
      states.sql "CREATE TABLE songs (title); INSERT INTO songs VALUES ('x')"
      refused(nil, "store", states.path, "another program's database")
      assert.equal("delete", states.sql "PRAGMA journal_mode")
    end)
  end)

  describe("that is damaged", function()
    local function damage(offset, bytes)
      local state = states.open()
      states.put_alloc(state)
      for i = 1, 100 do assert(state:add_event(event("e" .. i))) end
      state:close()
      states.sql "PRAGMA wal_checkpoint(TRUNCATE); SELECT 1"
      local file <close> = assert(io.open(states.path, "r+b"))
      assert(file:seek("set", offset))
      assert(file:write(bytes))
    end

    for what, case in pairs {
      ["in a page"] = { 4096, ("\xa5"):rep(8192) },
      ["in its header"] = { 0, "no database at all" },
      ["in its tables' list"] = { 100, ("\0"):rep(2000) },
    } do
      it(what .. " is refused and left as it is, and the error says what to do", function()
        damage(table.unpack(case))
        local before = states.bytes(states.path)
        for _, opts in ipairs { {}, { readonly = true } } do
          local state, err = states.open(opts)
          assert.is_nil(state)
          assert.equal("corrupt", err.kind)
          assert.truthy(tostring(err):find(states.path, 1, true), tostring(err))
          assert.truthy(tostring(err):find("dockrun did not change it; stop every dockrun", 1, true), tostring(err))
        end
        assert.is_true(before == states.bytes(states.path), "the file has changed")
      end)
    end
  end)

  describe("on a full disk", function()
    -- Runs code on a file system of 1 MB that no other process sees, with `dir`, `ballast` (a file of 300 kB on it) and
    -- `fill`, which adds emitter until one is refused: how many were not, and the error.
    local function on_small_disk(code)
      local result = process.run({ "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" -e "$3" "$1"', "sh",
        states.dir, process.program, ([[
          local store, uv = require "dockrun.store", require "luv"
          local dir = arg[1]
          local ballast = dir .. "/ballast"
          local file = assert(io.open(ballast, "w"))
          file:write(("x"):rep(300000)):close()
          local function fill(state)
            for i = 0, 10000 do
              local id, err = state:add_event { time = "now", event = "e", message = ("m"):rep(10000) }
              if not id then return i, err end
            end
          end
        ]] .. code) }, { program = "unshare" })
      assert.equal(0, result.code, result.stderr)
      return result.stdout
    end

    it("says so, keeps what it had, and goes on once there is room", function()
      local out = on_small_disk [[
        local state = assert(store.open(dir))
        local added, err = fill(state)
        print(err.kind, err)
        print(added > 10, added == #state:events())
        local closed <close> = assert(store.open(dir, { readonly = true }))
        print(added == #closed:events())
        os.remove(ballast)
        print(state:add_event { time = "now", event = "e" } == added + 1)
      ]]
      assert.truthy(out:match "^full\t/.*/state.db: database or disk is full; make room on its file system", out)
      assert.truthy(out:match "\ntrue\ttrue\ntrue\ntrue\n$", out)
    end)

    it("undoes a transaction wholly", function()
      local out = on_small_disk [[
        local state = assert(store.open(dir))
        local ok, err = state:transaction(function() fill(state) end)
        print(ok, err.kind, #state:events())
      ]]
      assert.equal("nil\tfull\t0\n", out)
    end)

    it("cannot be made, and says so", function()
      local out = on_small_disk [[
        local rest = assert(io.open(dir .. "/rest", "w"))
        rest:setvbuf "no"
        while rest:write(("x"):rep(1024)) do end
        local state, err = store.open(dir)
        print(state, err.kind, err)
        os.remove(ballast)
        print(store.open(dir) ~= nil)
      ]]
      assert.truthy(out:match "^nil\tfull\t.*/state.db: .*make room on its file system.*\ntrue\n$", out)
    end)
  end)
end)
