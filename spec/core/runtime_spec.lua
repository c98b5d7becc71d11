-- Fibers, waiting, cancelling and queues, from inside: these specs run in a fiber themselves. What only shows when a whole
-- program ends is in a child process.
local dockrun = require "dockrun"
local process = require "spec.process"
local uv = require "luv"

-- An error that was expected; fails where there was none.
local function error_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

-- Lets every other fiber run until it waits.
local function settle()
  for _ = 1, 3 do dockrun.sleep(0) end
end

local function forever() dockrun.queue():pop() end

describe("a fiber", function()
  it("gets the arguments of spawn and hands its results to await, nils as well", function()
    local fiber = dockrun.spawn(function(...) return select("#", ...), ..., nil end, "a", nil, "c")
    assert.same({ n = 3, 3, "a", nil }, table.pack(fiber:await()))
    assert.same({ n = 3, 3, "a", nil }, table.pack(fiber:await()))
  end)

  it("starts when its maker waits, and not before", function()
    local started = false
    local fiber = dockrun.spawn(function() started = true end)
    assert.is_false(started)
    fiber:await()
    assert.is_true(started)
  end)

  it("takes its turn with others at every wait", function()
    local order = {}
    local function worker(name)
      for i = 1, 3 do
        order[#order + 1] = name .. i
        dockrun.sleep(0)
      end
    end
    local a, b = dockrun.spawn(worker, "a"), dockrun.spawn(worker, "b")
    a:await()
    b:await()
    assert.same({ "a1", "b1", "a2", "b2", "a3", "b3" }, order)
  end)

  it("lets others run by a plain yield", function()
    local order = {}
    local function worker(name)
      order[#order + 1] = name
      coroutine.yield()
      order[#order + 1] = name
    end
    local a, b = dockrun.spawn(worker, "a"), dockrun.spawn(worker, "b")
    a:await()
    b:await()
    assert.same({ "a", "b", "a", "b" }, order)
  end)

  it("raises its error in everyone who awaits it, the same value", function()
    local thrown = {}
    local fiber = dockrun.spawn(function() error(thrown) end)
    local other = dockrun.spawn(function() return error_of(fiber.await, fiber) end)
    assert.equal(thrown, error_of(fiber.await, fiber))
    assert.equal(thrown, other:await())
  end)

  it("is waited for by join, which raises nothing of its", function()
    local gate = dockrun.queue()
    local fiber = dockrun.spawn(function() error(gate:pop(), 0) end)
    local other = dockrun.spawn(function() return select("#", fiber:join()) end)
    settle()
    assert.equal("waiting", other:status())
    gate:push "its own affair"
    assert.equal(0, other:await())
    assert.equal("failed", fiber:status())
    fiber:join()  -- once more
  end)

  it("cancels who waits by join, though what that waits for ends at once with it", function()
    local gate = dockrun.queue()
    local fiber = dockrun.spawn(function() gate:pop() end)
    local other = dockrun.spawn(function() fiber:join() end)
    settle()
    other:cancel "enough"
    fiber:cancel "and that too"
    assert.matches("enough", tostring(error_of(other.await, other)))
    assert.equal("failed", fiber:status())
  end)

  it("runs on where an await is out of time", function()
    local gate = dockrun.queue()
    local fiber = dockrun.spawn(function() return gate:pop() end)
    local value, err = fiber:await(0.01)
    assert.is_nil(value)
    assert.equal("timeout", err.kind)
    gate:push "late"
    assert.equal("late", fiber:await(120))
  end)

  it("cannot wait for its own end", function()
    local fiber
    fiber = dockrun.spawn(function() fiber:await() end)
    assert.matches("cannot wait for its own end", error_of(fiber.await, fiber))
  end)

  it("tells its state", function()
    local seen = {}
    local gate = dockrun.queue()
    local fiber
    fiber = dockrun.spawn(function()
      seen[#seen + 1] = fiber:status()
      gate:pop()
    end)
    seen[#seen + 1] = fiber:status()
    settle()
    seen[#seen + 1] = fiber:status()
    gate:push(true)
    fiber:await()
    seen[#seen + 1] = fiber:status()
    local failing = dockrun.spawn(error)
    pcall(failing.await, failing)
    seen[#seen + 1] = failing:status()
    assert.same({ "new", "running", "waiting", "done", "failed" }, seen)
    assert.matches("^fiber 0x%x+ %(done%)$", tostring(fiber))
  end)

  it("finds itself by current()", function()
    local fiber
    fiber = dockrun.spawn(function() return rawequal(dockrun.current(), fiber) end)
    assert.is_true(fiber:await())
  end)

  it("is made of a function and nothing else", function()
    assert.matches("function expected", error_of(dockrun.spawn, {}))
  end)

  it("is many fibers without trouble", function()
    local fibers, sum = {}, 0
    for i = 1, 2000 do
      fibers[i] = dockrun.spawn(function()
        dockrun.sleep(i % 7 / 1000)
        return i
      end)
    end
    for _, fiber in ipairs(fibers) do sum = sum + fiber:await() end
    assert.equal(2001000, sum)
  end)
end)

describe("a cancel", function()
  it("raises in the fiber at what it waits for", function()
    local seen
    local fiber = dockrun.spawn(function()
      local ok, err = pcall(forever)
      seen = { ok, err.kind, tostring(err) }
    end)
    settle()
    assert.is_true(fiber:cancel())
    fiber:await()
    assert.same({ false, "cancelled", "cancelled" }, seen)
  end)

  it("carries its reason: a sentence, or any value", function()
    local reason = {}
    for _, given in ipairs { "the operator said so", reason } do
      local fiber = dockrun.spawn(forever)
      settle()
      fiber:cancel(given)
      local err = error_of(fiber.await, fiber)
      if given == reason then assert.equal(reason, err) else assert.same({ "cancelled", given }, { err.kind, err.message }) end
    end
  end)

  it("closes the fiber's variables, innermost first, and each may wait and sees the reason", function()
    local closed = {}
    local function tracked(name)
      return setmetatable({}, {
        __close = function(_, err)
          dockrun.sleep(0.005)
          closed[#closed + 1] = name .. " " .. tostring(err)
        end,
      })
    end
    local fiber = dockrun.spawn(function()
      local outer <close> = tracked "outer"
      local inner <close> = tracked "inner"
      forever(outer, inner)
    end)
    settle()
    fiber:cancel "enough"
    assert.equal("cancelled", error_of(fiber.await, fiber).kind)
    assert.same({ "inner enough", "outer enough" }, closed)
  end)

  it("is raised once: a fiber that caught it may go on", function()
    local fiber = dockrun.spawn(function()
      pcall(forever)
      dockrun.sleep(0.01)
      return "cleaned up"
    end)
    settle()
    fiber:cancel()
    assert.equal("cleaned up", fiber:await())
  end)

  it("meets a fiber that runs at its next wait", function()
    local fiber
    fiber = dockrun.spawn(function()
      fiber:cancel()
      local reached = true
      local err = error_of(dockrun.sleep, 0)
      return reached, err.kind
    end)
    assert.same({ true, "cancelled" }, { fiber:await() })
  end)

  it("keeps a fiber that is new from running at all", function()
    local ran = false
    local fiber = dockrun.spawn(function() ran = true end)
    fiber:cancel()
    assert.equal("cancelled", error_of(fiber.await, fiber).kind)
    assert.is_false(ran)
  end)

  it("does nothing to a fiber that has ended, and says so", function()
    local fiber = dockrun.spawn(function() return 1 end)
    fiber:await()
    assert.is_false(fiber:cancel())
    assert.equal(1, fiber:await())
  end)

  it("of one that awaits leaves the awaited alone", function()
    local gate = dockrun.queue()
    local awaited = dockrun.spawn(function() return gate:pop() end)
    local awaiting = dockrun.spawn(function() awaited:await() end)
    settle()
    awaiting:cancel()
    assert.equal("cancelled", error_of(awaiting.await, awaiting).kind)
    gate:push "fine"
    assert.equal("fine", awaited:await())
  end)
end)

describe("a fiber that is <close>", function()
  it("is cancelled where its scope ends, and its clean-up is waited for", function()
    local cleaned = false
    do
      local fiber <close> = dockrun.spawn(function()
        pcall(forever)
        dockrun.sleep(0.01)
        cleaned = true
      end)
      settle()
      assert.equal("waiting", fiber:status())
    end
    assert.is_true(cleaned)
  end)

  it("is cancelled where an error leaves the scope, and the error comes through", function()
    local outer
    local err = error_of(function()
      local fiber <close> = dockrun.spawn(forever)
      outer = fiber
      settle()
      error("the scope's own", 0)
    end)
    assert.equal("the scope's own", err)
    assert.equal("failed", outer:status())
  end)

  it("may have ended already", function()
    local fiber <close> = dockrun.spawn(function() return 1 end)
    assert.equal(1, fiber:await())
  end)
end)

describe("all", function()
  it("runs its functions side by side and returns their results in order", function()
    local go = dockrun.queue()
    local results = dockrun.all {
      function() return "slow, after " .. go:pop() end,  -- one after the other it would wait for ever
      function()
        dockrun.sleep(0)
        go:push "the quick"
        return "quick"
      end,
      function() return nil end,
    }
    assert.same({ "slow, after the quick", "quick" }, results)
  end)

  it("cancels the others where one fails, waits for their clean-up and raises the error as it is", function()
    local thrown, cleaned = {}, 0
    local function other()
      pcall(forever)
      dockrun.sleep(0.01)
      cleaned = cleaned + 1
    end
    assert.equal(thrown, error_of(dockrun.all, { other, function() dockrun.sleep(0.01) error(thrown) end, other }))
    assert.equal(2, cleaned)
  end)

  it("of nothing is nothing", function() assert.same({}, dockrun.all {}) end)

  it("passes a cancel on", function()
    local ended = 0
    local function one()
      pcall(forever)
      ended = ended + 1
    end
    local fiber = dockrun.spawn(dockrun.all, { one, one })
    settle()
    fiber:cancel()
    assert.equal("cancelled", error_of(fiber.await, fiber).kind)
    assert.equal(2, ended)
  end)
end)

describe("a time that is waited", function()
  -- The clock of the loop counts whole milliseconds: how a time is rounded shows only where it begins within one.
  local function assert_never_short(wait)
    for i = 1, 40 do
      for _, seconds in ipairs { 0, 0.0004, 0.001, 0.0015, 0.0111 } do
        local before = dockrun.now()
        wait(seconds)
        local took = dockrun.now() - before
        assert(took >= seconds, ("round %d: %g s after %.6f s"):format(i, seconds, took))
      end
    end
  end

  it("is never short in sleep", function() assert_never_short(dockrun.sleep) end)

  it("is never short in a queue's pop", function()
    local queue = dockrun.queue()
    assert_never_short(function(seconds) assert.equal("timeout", select(2, queue:pop(seconds)).kind) end)
  end)

  it("is never short in a fiber's await", function()
    local fiber <close> = dockrun.spawn(forever)
    assert_never_short(function(seconds) assert.equal("timeout", select(2, fiber:await(seconds)).kind) end)
  end)

  it("is never short in a request", function()
    local server <close> = require("spec.server").start(function(connection) connection:read(1000000) end)
    assert_never_short(function(seconds)
      local _, err = dockrun.http.request { url = server.url, unix_socket = server.path, timeout = seconds }
      assert.equal("timeout", err.kind)
    end)
  end)

  it("is never short for code that cannot yield", function()
    assert_never_short(function(seconds) ("x"):gsub("x", function() dockrun.sleep(seconds) end) end)
  end)
end)

describe("sleep", function()
  for _, wrong in ipairs { -1, 0 / 0, "soon", {} } do
    it("refuses " .. (type(wrong) == "table" and "a table" or tostring(wrong)), function()
      assert.matches("bad argument #1", error_of(dockrun.sleep, wrong))
    end)
  end
end)

describe("a queue", function()
  it("gives what came first first", function()
    local queue = dockrun.queue()
    for i = 1, 3 do assert.is_true(queue:push(i)) end
    assert.equal(3, #queue)
    assert.same({ 1, 2, 3 }, { queue:pop(), queue:pop(), queue:pop() })
    assert.equal(0, #queue)
  end)

  it("serves those who wait in the order they came", function()
    local queue, got = dockrun.queue(), {}
    local fibers = {}
    for i = 1, 3 do
      fibers[i] = dockrun.spawn(function()
        local value = queue:pop()
        got[#got + 1] = i .. value
      end)
    end
    settle()
    for _, value in ipairs { "a", "b", "c" } do queue:push(value) end
    for _, fiber in ipairs(fibers) do fiber:await() end
    assert.same({ "1a", "2b", "3c" }, got)
  end)

  it("lets a pop end by time, and gives the next value to who comes then", function()
    local queue = dockrun.queue()
    local value, err = queue:pop(0.01)
    assert.is_nil(value)
    assert.equal("timeout", err.kind)
    assert.equal("timeout", select(2, queue:pop(0)).kind)
    queue:push "kept"
    assert.equal("kept", queue:pop(0))
  end)

  it("loses nothing when one who waits is cancelled", function()
    local queue = dockrun.queue()
    local early, late = dockrun.spawn(queue.pop, queue), dockrun.spawn(queue.pop, queue)
    settle()
    early:cancel()
    queue:push "value"
    pcall(early.await, early)
    assert.equal("value", late:await(120))
  end)

  it("is emptied after its close, then gives nil at once", function()
    local queue = dockrun.queue()
    queue:push "left"
    queue:close()
    assert.is_false(queue:push "too late")
    assert.equal("left", queue:pop())
    assert.same({ n = 1 }, table.pack(queue:pop()))
  end)

  it("ends every pop by its close", function()
    local queue = dockrun.queue()
    local a, b = dockrun.spawn(queue.pop, queue), dockrun.spawn(queue.pop, queue)
    settle()
    queue:close()
    assert.same({ n = 1 }, table.pack(a:await(120)))
    assert.same({ n = 1 }, table.pack(b:await(120)))
  end)

  it("holds false, and no nil", function()
    local queue = dockrun.queue()
    queue:push(false)
    assert.is_false(queue:pop())
    assert.matches("a queue holds no nil", error_of(queue.push, queue, nil))
  end)
end)

describe("a generator that waits", function()
  local function count_to(n)
    return function()
      for i = 1, n do
        dockrun.sleep(0.001)
        coroutine.yield(i, "item")
        dockrun.sleep(0.001)
      end
      return nil
    end
  end

  it("parks its fiber, made by wrap or driven by resume, and hands over what it yields alone", function()
    local ticks = 0
    local ticking <close> = dockrun.spawn(function()
      while true do
        ticks = ticks + 1
        dockrun.sleep(0.001)
      end
    end)
    assert.equal("new", ticking:status())
    local wrapped = {}
    for i, what in coroutine.wrap(count_to(3)) do wrapped[#wrapped + 1] = what .. i end
    assert.same({ "item1", "item2", "item3" }, wrapped)
    local co = coroutine.create(count_to(2))
    assert.same({ true, 1, "item" }, { coroutine.resume(co) })
    assert.same({ true, 2, "item" }, { coroutine.resume(co) })
    assert.same({ true, nil }, { coroutine.resume(co) })
    assert.equal("dead", coroutine.status(co))
    assert.is_true(ticks > 3)
  end)

  it("may stand inside of another", function()
    local function doubled(inner)
      return coroutine.wrap(function()
        for i in coroutine.wrap(inner) do
          coroutine.yield(i)
          dockrun.sleep(0)
          coroutine.yield(i)
        end
      end)
    end
    local got = {}
    for i in doubled(count_to(2)) do got[#got + 1] = i end
    assert.same({ 1, 1, 2, 2 }, got)
  end)

  it("is cancelled with its fiber and closes its variables", function()
    local closed = false
    local fiber = dockrun.spawn(function()
      for _ in coroutine.wrap(function()
        local guard <close> = setmetatable({}, { __close = function() closed = true end })
        forever(guard)
      end) do end
    end)
    settle()
    fiber:cancel()
    assert.equal("cancelled", error_of(fiber.await, fiber).kind)
    assert.is_true(closed)
  end)

  -- The two functions that are dockrun's own, beside what plain Lua says to the same.
  it("can be resumed by its own fiber alone while that waits", function()
    local gate, inner = dockrun.queue(), nil
    local fiber = dockrun.spawn(function()
      inner = coroutine.create(function() return gate:pop() end)
      return coroutine.resume(inner)
    end)
    settle()
    assert.same({ false, "cannot resume a coroutine that waits" }, { coroutine.resume(inner) })
    gate:push "its own"
    assert.same({ true, "its own" }, { fiber:await(120) })
    local own
    fiber = dockrun.spawn(function()
      own = coroutine.running()
      coroutine.yield()
      return gate:pop()
    end)
    settle()
    assert.same({ false, "cannot resume a coroutine that waits" }, { coroutine.resume(own) })
    gate:push "again"
    assert.equal("again", fiber:await(120))
  end)

  it("may be closed by another fiber: its own is told, and waits as before", function()
    local gate, inner = dockrun.queue(), nil
    local fiber = dockrun.spawn(function()
      inner = coroutine.create(function() dockrun.sleep(0.02) end)
      local ok, why = coroutine.resume(inner)
      assert(not ok, "it went on")
      local _, err = gate:pop(0.01)
      return why, err.kind, gate:pop()
    end)
    settle()
    assert.is_true(coroutine.close(inner))
    local late = dockrun.spawn(function() dockrun.sleep(0.1) gate:push "late" end)
    assert.same({ "cannot resume dead coroutine", "timeout", "late" }, { fiber:await(120) })
    late:await()
  end)

  it("is otherwise a coroutine as Lua has them", function()
    local script = os.tmpname()
    finally(function() os.remove(script) end)
    local file <close> = assert(io.open(script, "w"))
    file:write [[
      local function show(...) print(select("#", ...), ...) end
      local function closing(what)
        return setmetatable({}, { __close = function(_, err) print("close", what, err) end })
      end
      local function fails()
        local a <close> = closing "a"
        local b <close> = closing "b"
        coroutine.yield(1)
        error "boom"
      end
      local co = coroutine.create(fails)
      show(coroutine.resume(co)) show(coroutine.resume(co)) show(coroutine.resume(co))
      show(coroutine.close(co))
      local wrapped = coroutine.wrap(fails)
      show(wrapped()) show(pcall(wrapped)) show(pcall(wrapped))
      show(pcall(coroutine.wrap(function() error({}, 0) end)) )
      local replaced = coroutine.wrap(function()
        local c <close> = setmetatable({}, { __close = function() error("from close", 0) end })
        error "first"
      end)
      show(pcall(replaced))
      show(coroutine.resume(coroutine.running()))
      local self self = coroutine.wrap(function() return pcall(self) end)
      show(self())
      show(pcall(coroutine.resume, 1)) show(pcall(coroutine.wrap, 1))
      show(coroutine.wrap(function(...) return coroutine.yield(...) end)(1, nil, nil))
    ]]
    file:close()
    local function said(program)
      local result = process.run({ script }, { program = program })
      assert.equal(0, result.code, result.stderr)
      return (result.stdout:gsub("table: 0x%x+", "table"))
    end
    assert.equal(said "lua5.4", said(process.program))
  end)
end)

describe("where nothing can yield", function()
  it("a wait runs the loop in its place: other fibers go on", function()
    local ticks = 0
    local ticking <close> = dockrun.spawn(function()
      while true do
        ticks = ticks + 1
        dockrun.sleep(0.001)
      end
    end)
    local list = { 5, 3, 1, 4, 2 }
    table.sort(list, function(a, b)
      dockrun.sleep(0.002)
      return a < b
    end)
    assert.same({ 1, 2, 3, 4, 5 }, list)
    assert.is_true(ticks > 3)
    assert.equal("waiting", ticking:status())
    assert.equal("a.b.", (("ab"):gsub(".", function(c)
      dockrun.sleep(0)
      return c .. "."
    end)))
  end)

  it("tasks may do so inside of one another", function()
    local function sorted(list)
      table.sort(list, function(a, b)
        dockrun.sleep(0.001)
        return a < b
      end)
      return list
    end
    local results = dockrun.all {
      function() return sorted { 3, 1, 2 } end,
      function() return sorted { "c", "b", "a" } end,
      function() return coroutine.wrap(sorted) { 9, 8 } end,
    }
    assert.same({ { 1, 2, 3 }, { "a", "b", "c" }, { 8, 9 } }, results)
  end)

  it("a cancel is heard as well", function()
    local fiber = dockrun.spawn(function() table.sort({ 2, 1 }, forever) end)
    settle()
    fiber:cancel()
    assert.equal("cancelled", error_of(fiber.await, fiber).kind)
  end)
end)

describe("a callback of luv", function()
  local timer
  before_each(function() timer = uv.new_timer() end)
  after_each(function()
    if not timer:is_closing() then timer:close() end
  end)

  it("may wait like any other code", function()
    local queue = dockrun.queue()
    timer:start(1, 0, function()
      dockrun.sleep(0.005)
      queue:push(dockrun.spawn(function() return "spawned" end):await())
    end)
    assert.equal("spawned", queue:pop(120))
  end)

  it("comes where luv was first loaded by a coroutine that is gone", function()
    local result = process.run { "-e", [[
      package.loaded.luv = nil
      coroutine.wrap(function() require "luv" end)()
      collectgarbage()
      collectgarbage()
      local dockrun, uv = require "dockrun", require "luv"
      local queue, timer = dockrun.queue(), uv.new_timer()
      for _ = 1, 100 do
        timer:start(0, 0, function() queue:push(true) end)
        queue:pop(120)
      end
      timer:close()]] }
    assert.equal(0, result.code, result.stderr)
  end)

  it("is told where it cannot wait", function()
    local queue = dockrun.queue()
    timer:start(1, 0, function()
      queue:push(select(2, pcall(table.sort, { 2, 1 }, function() dockrun.sleep(0) end)))
    end)
    assert.matches("cannot wait inside of a callback that cannot yield; use spawn%(%)", queue:pop(120))
  end)
end)

describe("luv's loop", function()
  local function run(code) return process.run({ "-e", [[local dockrun, uv = require "dockrun", require "luv"
      ]] .. code }, { timeout = 10 }) end

  it("does not sleep over a fiber that was woken just before it polls", function()
    local result = run [[
      local queue, listening, prepare, rounds = dockrun.queue(), uv.new_tcp(), uv.new_prepare(), 0
      listening:bind("127.0.0.1", 0)
      listening:listen(1, print)
      prepare:start(function()
        rounds = rounds + 1
        if rounds == 2 then queue:push "awake" end  -- the first round is one that does not sleep
      end)
      print(queue:pop())
      listening:close()
      prepare:close()]]
    assert.same({ code = 0, stdout = "awake\n", stderr = "" }, result)
  end)

  it("is driven by uv.run() as people know it, while fibers go on", function()
    local result = run [[
      local timer, ticks = uv.new_timer(), 0
      dockrun.spawn(function() dockrun.sleep(0.005) print "task" end)
      timer:start(1, 1, function()
        ticks = ticks + 1
        if ticks == 20 then timer:close() end
        dockrun.sleep(0.001)
      end)
      assert(uv.run "nowait")
      assert(uv.run "once")
      print(uv.run(), ticks)
      print(uv.run())]]
    assert.same({ code = 0, stdout = "task\nfalse\t20\nfalse\n", stderr = "" }, result)
  end)

  it("is left by uv.stop(), and by a signal", function()
    local result = run [[
      local timer = uv.new_timer()
      timer:start(1, 1000000, uv.stop)
      print(uv.run())
      uv.new_timer():start(1, 0, function() uv.kill(uv.os_getpid(), "sigint") end)
      print(pcall(uv.run))]]
    assert.same({ code = 0, stdout = "true\nfalse\tinterrupted by SIGINT\n", stderr = "" }, result)
  end)
end)

describe("a script", function()
  local function run(code)
    return process.run { "-e", [[local dockrun, uv = require "dockrun", require "luv"
      ]] .. code }
  end

  it("that can never go on is told so", function()
    local result = run "dockrun.queue():pop()"
    assert.equal(1, result.code)
    assert.matches("deadlock: waiting, but no timer, connection or fiber is pending", result.stderr)
  end)

  it("whose fibers wait for each other is told so", function()
    local result = run [[
      local a, b
      a = dockrun.spawn(function() b:await() end)
      b = dockrun.spawn(function() a:await() end)
      a:await()]]
    assert.equal(1, result.code)
    assert.matches("deadlock", result.stderr)
  end)

  it("that cannot yield where it can never go on is told so", function()
    local result = run "table.sort({ 2, 1 }, function() dockrun.queue():pop() end)"
    assert.equal(1, result.code)
    assert.matches("deadlock: waiting", result.stderr)
  end)

  it("may clean up after a deadlock", function()
    local result = run [[
      local ok, err = pcall(function() dockrun.queue():pop() end)
      dockrun.sleep(0)
      print(ok, err.kind)]]
    assert.same({ 0, "false\tdeadlock\n" }, { result.code, result.stdout })
  end)

  it("takes its fibers along when it ends, after their clean-up", function()
    local result = run [[
      dockrun.spawn(function()
        local guard <close> = setmetatable({}, { __close = function()
          dockrun.sleep(0.01)
          print "cleaned up"
        end })
        dockrun.sleep(1000)
      end)
      dockrun.sleep(0)
      print "done"]]
    assert.same({ 0, "done\ncleaned up\n" }, { result.code, result.stdout })
  end)

  it("is told of a fiber's error that nobody awaits, and goes on", function()
    local result = run [[
      dockrun.spawn(function() error "unheard" end)
      dockrun.sleep(0)
      collectgarbage()
      print "going on"]]
    assert.same({ 0, "going on\n" }, { result.code, result.stdout })
    assert.matches("a fiber failed: .*unheard\nstack traceback:", result.stderr)
  end)

  for what, thrown in pairs {
    ["a string"] = "error 'broken callback'",
    ["an object"] = "error(setmetatable({}, { __tostring = function() return 'broken callback' end }))",
    ["after a wait"] = "dockrun.sleep(0) error 'broken callback'",
    ["an object that cannot tell its text"] =
      "print 'broken callback' error(setmetatable({}, { __tostring = function() error 'worse' end }))",
  } do
    it("is told of an error in a callback of luv (" .. what .. "), and goes on", function()
      local result = run([[
        local timer = uv.new_timer()
        timer:start(1, 0, function() ]] .. thrown .. [[ end)
        dockrun.sleep(0.05)
        print "going on"]])
      assert.equal(0, result.code, result.stderr)
      assert.matches("going on\n$", result.stdout)
      assert.matches("a fiber failed: ", result.stderr)
      assert.matches("broken callback", result.stdout .. result.stderr)
    end)
  end

  it("may use anything in a finalizer that runs as it ends", function()
    local result = run [[
      local things, said = {}, {}
      last = setmetatable({}, { __gc = function() -- made first, so that it runs last
        local function try(name, fn, ...) said[#said + 1] = name .. ": " .. tostring(select(2, pcall(fn, ...))) end
        try("ports", things.ports.allocate, things.ports, "127.0.0.1", "x")
        try("engine", things.engine.info, things.engine)
        try("stream", things.stream.read, things.stream)
        try("queue", things.queue.push, things.queue, 1)
        try("database", things.database.exec, things.database, "select 1")
        try("http", dockrun.http.request, { url = "http://127.0.0.1:1/" })
        try("cancel", things.task.cancel, things.task)
        for _, what in ipairs { "sleep", "queue" } do pcall(what == "sleep" and dockrun.sleep or dockrun.queue().pop, 0.01) end
        io.stdout:write(table.concat(said, "\n"), "\n")
      end })
      things.ports = dockrun.ports.new {}
      local servers = require "spec.server"
      local server = servers.engine(function(connection)
        connection:write "HTTP/1.1 200 OK\r\n\r\n"
        connection:await_end()
        return false
      end)
      things.engine = dockrun.connect { endpoint = server.endpoint }
      things.stream = assert(things.engine:events())
      things.queue = dockrun.queue()
      things.database = require "dockrun.core.sqlite".open ":memory:"
      things.task = dockrun.spawn(function() dockrun.sleep(60) end)
      dockrun.sleep(0)]]
    assert.equal(0, result.code, result.stderr)
    assert.equal("", result.stderr)
    assert.matches("ports: .*state is closing\nengine: .*state is closing\nstream: nil\nqueue: true\ndatabase: .*closed",
      (result.stdout:gsub("%(command line%):%d+: ", "")))
  end)
end)

describe("DOCKRUN_TRACE=fibers", function()
  local SCRIPT = [[local d = require "dockrun"
    local queue, main = d.queue(), d.current()
    local fiber <close> = d.spawn(function() queue:pop() d.sleep(60) end)
    queue:push(1) d.sleep(0.001) main = fiber:status()]]

  it("prints what each fiber waits for, and how that ends", function()
    local result = process.run({ "-e", SCRIPT }, { env = { DOCKRUN_TRACE = "fibers" } })
    assert.equal(0, result.code)
    for _, line in ipairs { "fiber %d is spawned", "fiber %d waits for a sleep", "fiber %d timed out", "fiber %d is cancelled",
      "fiber %d waits for the end of a fiber", "fiber %d is woken", "fiber %d ends" } do
      assert.matches("dockrun: " .. line:gsub("%%d", "%%d+") .. "\n", result.stderr)
    end
  end)

  it("prints nothing if it is not set", function() assert.equal("", process.run({ "-e", SCRIPT }).stderr) end)
end)
