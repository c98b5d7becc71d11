-- What a fiber under limits may use, and that it ends whatever it does.
local dockrun = require "dockrun"
local budgets = require "dockrun.core.budget"
local runtime = require "dockrun.core.runtime"

describe("limits", function()
  local LIMITS = { instructions = 3000000, memory = 32, seconds = 10 }

  -- Garbage of others, which goes as soon as a limit is near, must not make room for ever.
  setup(function()
    for i = 1, 50 do local _ = ("x"):rep(4 << 20) .. i end
  end)
  teardown(function() collectgarbage() end)

  -- Runs fn in a fiber under limits; gives how it ended.
  local function run(fn, limits)
    local fiber = runtime.spawn(function()
      runtime.limit(limits or LIMITS)
      return fn()
    end)
    local ok, answer = pcall(fiber.await, fiber, 20)
    return ok, ok and answer or tostring(answer), fiber
  end

  local function assert_ends(expected, fn, limits)
    local ok, why = run(fn, limits)
    assert.is_false(ok)
    assert.matches(expected, why, 1, true)
  end

  it("reach a fiber of a script inside of a pattern match", function()
    local code = [[local dockrun = require "dockrun"
      local fiber = dockrun.spawn(function()
        dockrun.limit { seconds = 0.2 }
        return ("a"):rep(30000):find(("a*"):rep(20) .. "b")
      end)
      print(pcall(fiber.await, fiber))]]
    local result = require("spec.process").run { "-e", code }
    assert.equal(0, result.code, result.stderr)
    assert.matches("^false\t.*it used the processor for more than 0.2 seconds", result.stdout)
  end)

  it("leave alone what stays within them", function()
    assert.same({ true, 7 }, { (run(function()
      for _ = 1, 200000 do local _ = {} end
      return 7
    end)) , 7 })
  end)

  for what, fn in pairs {
    ["a loop"] = function() while true do end end,
    ["a loop in pcall"] = function() while true do pcall(function() while true do end end) end end,
    ["a loop in a coroutine"] = function() coroutine.wrap(function() while true do end end)() end,
    ["a loop in one coroutine after the other"] = function()
      while true do coroutine.resume(coroutine.create(function() while true do end end)) end
    end,
    ["a loop in a fiber that it spawned"] = function() runtime.spawn(function() while true do end end):await() end,
    ["loops in many fibers together"] = function()
      local fibers = {}
      for i = 1, 10 do fibers[i] = runtime.spawn(function() for _ = 1, 1000000 do end end) end
      for _, fiber in ipairs(fibers) do fiber:await() end
    end,
    ["tasks that spawn each other"] = function()
      local function again() runtime.spawn(again) end
      again()
      while true do runtime.sleep(0) end
    end,
  } do
    it("end " .. what, function() assert_ends("it ran more than 3000000 instructions", fn) end)
  end

  for what, fn in pairs {
    ["a string that doubles"] = function() local s = "x" while true do s = s .. s end end,
    ["a string that doubles, whatever is raised"] = function()
      local s = "x"
      while #s > 0 do pcall(function() s = s .. s end) end
    end,
    ["a table that grows"] = function() local t = {} while #t >= 0 do t[#t + 1] = {} end end,
    ["tasks without end"] = function() while true do runtime.spawn(function() runtime.sleep(9) end) end end,
  } do
    it("end " .. what, function() assert_ends("memory", fn, { memory = 32 }) end)
  end

  it("refuse what is far too much at once", function()
    assert_ends("not enough memory", function() return ("x"):rep(1 << 30) end)
  end)

  it("do not count garbage as memory", function()
    assert.is_true((run(function()
      for i = 1, 500 do local _ = ("x"):rep(100000) .. i end
    end, { memory = 32 })))
  end)

  it("end what keeps the processor busy in few instructions", function()
    assert_ends("it used the processor for more than 0.2 seconds", function()
      local a, b = ("x"):rep(5000000), ("x"):rep(4999999) .. "x"
      while a == b do end
    end, { seconds = 0.2, memory = 64 })
  end)

  it("say where it was", function()
    local ok, why = run(function() while true do end end)
    assert.is_false(ok)
    assert.matches("budget_spec.lua:%d+: it ran more", why)
  end)

  it("count instructions anew in each period, for what comes back to the loop", function()
    assert.is_true((run(function()
      for _ = 1, 6 do
        for _ = 1, 1000000 do end
        runtime.sleep(0.06)
      end
    end, { instructions = 3000000, period = 0.05 })))
  end)

  it("cannot be loosened from within", function()
    assert_ends("instructions", function()
      runtime.limit { instructions = 1 << 50 }
      while true do end
    end)
    assert_ends("more than 1000 instr", function()
      runtime.limit { instructions = 1000 }
      while true do end
    end)
  end)

  it("do not hold for who began it, nor for what is spawned free", function()
    local free
    run(function()
      free = runtime.spawn_free(function()
        for _ = 1, 4000000 do end
        return "done"
      end)
    end)
    assert.equal("done", free:await())
  end)

  it("let nothing wait where others would have to wait with it", function()
    assert_ends("cannot wait inside of a function of C", function() return ("x"):gsub(".", function() runtime.sleep(0.01) end) end)
    local queue = dockrun.queue()
    assert_ends("cannot wait inside of a function of C", function() return ("x"):gsub(".", function() queue:pop() end) end)
    collectgarbage()
    queue:push "still good"
    assert.equal("still good", queue:pop())
  end)

  it("are refused where they are none", function()
    for _, bad in ipairs { { instructions = -1 }, { memory = "much" }, { seconds = 0 / 0 } } do
      assert.is_false((run(function() end, bad)))
    end
    assert.is_false((pcall(runtime.limit, 5)))
  end)
end)

describe("a fiber that is killed", function()
  local function assert_ended(fiber)
    local ok = pcall(fiber.await, fiber, 10)
    assert.is_false(ok)
    assert.equal("failed", fiber:status())
  end

  for what, fn in pairs {
    ["waits"] = function() runtime.sleep(900) end,
    ["catches what is raised, and waits again"] = function() while true do pcall(runtime.sleep, 900) end end,
    ["does so in a coroutine"] = function() coroutine.wrap(function() while true do pcall(runtime.sleep, 900) end end)() end,
    ["yields"] = function() while true do coroutine.yield() end end,
    ["waits when its scope is closed"] = function()
      local _ <close> = setmetatable({}, { __close = function() while true do pcall(runtime.sleep, 900) end end })
      runtime.sleep(900)
    end,
  } do
    it("ends, although it " .. what, function()
      local fiber = runtime.spawn(fn)
      runtime.sleep(0.01)
      fiber:kill "enough"
      assert_ended(fiber)
    end)
  end

  it("takes those with it that it spawned, also where it has ended itself", function()
    local child
    local fiber = runtime.spawn(function()
      runtime.limit { instructions = 1000000 }
      child = runtime.spawn(function() while true do pcall(runtime.sleep, 900) end end)
    end)
    fiber:await()
    assert.equal("waiting", (function() runtime.sleep(0.01) return child:status() end)())
    fiber:kill()
    assert_ended(child)
  end)

  it("before it began never begins", function()
    local began = false
    local fiber = runtime.spawn(function() began = true end)
    fiber:kill()
    assert_ended(fiber)
    assert.is_false(began)
  end)

  it("at its end is left as it was", function()
    local fiber = runtime.spawn(function() return 5 end)
    fiber:await()
    fiber:kill()
    assert.equal(5, fiber:await())
  end)
end)

local MB = 1024 * 1024

-- How it holds against hostile code is in spec/sandbox/chunk_spec.lua.
describe("a strict budget", function()
  it("lets the state grow by so many bytes, and no more", function()
    collectgarbage()
    local budget <close> = budgets.new { memory = 4, instructions = 1000, seconds = 60 }
    assert.is_true(pcall(string.rep, "x", MB))
    assert.is_nil(budget:passed())
    assert.same({ false, "not enough memory" }, { pcall(string.rep, "x", 5 * MB) })
    assert.equal("memory", budget:passed())
    assert.has_error(function() budget:check() end)
  end)

  it("counts the instructions of a coroutine, and of no other code", function()
    local budget <close> = budgets.new { memory = 64, instructions = 10000, seconds = 60 }
    for _ = 1, 20000 do budget:passed() end
    local co = coroutine.create(function() while true do pcall(function() while true do end end) end end)
    budget:watch(co)
    local ok, why = coroutine.resume(co)
    assert.is_false(ok)
    assert.truthy(why:find("it ran more than 10000 instructions", 1, true))
    assert.equal("instructions", budget:passed())
  end)

  it("counts the processor's seconds", function()
    local budget <close> = budgets.new { memory = 64, instructions = 10000, seconds = 0.05 }
    local before = os.clock()
    while os.clock() - before < 0.1 do end
    assert.equal("seconds", budget:passed())
  end)

  it("limits nothing once it is closed, which it may be twice, or collected", function()
    local budget = budgets.new { memory = 1, instructions = 1000, seconds = 60 }
    budget:close()
    budget:close()
    assert.equal(2 * MB, #("x"):rep(2 * MB))
    budgets.new { memory = 1, instructions = 1000, seconds = 60 }
    collectgarbage()
    collectgarbage()
    assert.equal(2 * MB, #("x"):rep(2 * MB))
    local co = coroutine.create(function() for _ = 1, 100000 do end return "done" end)
    budget:watch(co)
    assert.same({ true, "done" }, { coroutine.resume(co) })
  end)

  it("is one at a time, of sane limits", function()
    do
      local _ <close> = budgets.new { memory = 64, instructions = 1000, seconds = 60 }
      assert.has_error(function() budgets.new { memory = 64, instructions = 1000, seconds = 60 } end, "another strict budget is in force")
    end
    for _, limits in ipairs { { memory = -1 }, { instructions = -1 }, { seconds = 0 / 0 }, { memory = "much" } } do
      assert.has_error(function() budgets.new(limits) end)
    end
  end)
end)
