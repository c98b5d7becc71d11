-- Limits for code that nobody trusts; how they hold against such code is in spec/sandbox/chunk_spec.lua.
local guards = require "dockrun.core.guard"

local MB = 1024 * 1024

describe("a guard", function()
  it("lets the state grow by so many bytes, and no more", function()
    collectgarbage()
    local guard <close> = guards.new(4 * MB, 1000, 60)
    assert.is_true(pcall(string.rep, "x", MB))
    assert.is_nil(guard:passed())
    assert.same({ false, "not enough memory" }, { pcall(string.rep, "x", 5 * MB) })
    assert.equal("memory", guard:passed())
    assert.has_error(function() guard:check() end)
  end)

  it("counts the instructions of a coroutine, and of no other code", function()
    local guard <close> = guards.new(64 * MB, 10000, 60)
    for _ = 1, 20000 do guard:passed() end
    local co = coroutine.create(function() while true do pcall(function() while true do end end) end end)
    guard:watch(co)
    local ok, why = coroutine.resume(co)
    assert.is_false(ok)
    assert.truthy(why:find("the limit of instructions is passed", 1, true))
    assert.equal("instructions", guard:passed())
  end)

  it("counts the processor's seconds", function()
    local guard <close> = guards.new(64 * MB, 10000, 0.05)
    local before = os.clock()
    while os.clock() - before < 0.1 do end
    assert.equal("seconds", guard:passed())
  end)

  it("limits nothing once it is closed, which it may be twice, or collected", function()
    local guard = guards.new(MB, 1000, 60)
    guard:close()
    guard:close()
    assert.equal(2 * MB, #("x"):rep(2 * MB))
    guards.new(MB, 1000, 60)
    collectgarbage()
    collectgarbage()
    assert.equal(2 * MB, #("x"):rep(2 * MB))
    local co = coroutine.create(function() for _ = 1, 100000 do end return "done" end)
    guard:watch(co)
    assert.same({ true, "done" }, { coroutine.resume(co) })
  end)

  it("is one at a time, of sane limits", function()
    do
      local _ <close> = guards.new(64 * MB, 1000, 60)
      assert.has_error(function() guards.new(64 * MB, 1000, 60) end, "there is a guard already")
    end
    for _, limits in ipairs { { 0, 1, 1 }, { 1, 0, 1 }, { 1, 1, 0 }, { -1, 1, 1 }, { 1, 1, 0 / 0 }, {} } do
      assert.has_error(function() guards.new(table.unpack(limits)) end)
    end
  end)
end)
