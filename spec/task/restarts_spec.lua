-- The restart policy's arithmetic, with a clock and dice of the spec's own.
local restarts = require "dockrun.task.restarts"

describe("a restart policy", function()
  local now, dice

  local function tracker(policy, on_success)
    now, dice = 100, 0
    return restarts.new(policy, {
      on_success = on_success or false, now = function() return now end, random = function() return dice end,
    })
  end

  local failure, success = { success = false }, { success = true }
  local function policy(mode, attempts) return { attempts = attempts or 2, interval = 60, delay = 10, mode = mode or "fail" } end

  it("restarts as often as it has attempts, then fails", function()
    local tracked = tracker(policy "fail")
    for attempt = 1, 2 do
      local decision = tracked:decide(failure)
      assert.same({ true, 10, attempt }, { decision.restart, decision.delay, decision.attempt })
      now = now + 10
    end
    local last = tracked:decide(failure)
    assert.same({ false, true }, { last.restart, last.failed })
    assert.matches("more than 2 restarts in 60 s", last.reason)
  end)

  it("waits for the rest of the interval with mode delay, and then counts anew", function()
    local tracked = tracker(policy "delay")
    for _ = 1, 2 do
      tracked:decide(failure)
      now = now + 10
    end
    local third = tracked:decide(failure)
    assert.same({ true, 40 }, { third.restart, third.delay })
    now = now + third.delay + 0.001
    local fourth = tracked:decide(failure)
    assert.same({ true, 10, 1 }, { fourth.restart, fourth.delay, fourth.attempt })
  end)

  it("counts an end exactly at the interval's end to the interval", function()
    local tracked = tracker(policy "fail", true)
    tracked:decide(failure)
    tracked:decide(failure)
    now = 160
    assert.is_false(tracked:decide(failure).restart)
    now = 160.5
    assert.is_true(tracked:decide(failure).restart)
  end)

  it("adds up to a quarter of the delay", function()
    local tracked = tracker(policy("fail", 4))
    for _, case in ipairs { { 0, 10 }, { 0.5, 11.25 }, { 0.999, 12.4975 } } do
      dice = case[1]
      assert.near(case[2], tracked:decide(failure).delay, 1e-9)
    end
  end)

  it("leaves a batch task that ended well alone, and restarts a service", function()
    local batch = tracker(policy()):decide(success)
    assert.same({ false, false }, { batch.restart, batch.failed })
    assert.is_true(tracker(policy(), true):decide(success).restart)
  end)

  it("restarts nothing without attempts: well ended is done, for a batch task alone", function()
    assert.is_false(tracker(policy("delay", 0)):decide(success).failed)
    assert.is_true(tracker(policy("delay", 0), true):decide(success).failed)
    assert.is_true(tracker(policy("delay", 0)):decide(failure).failed)
  end)

  it("gives up at once on what can never start", function()
    local decision = tracker(policy()):decide { unrecoverable = true }
    assert.same({ false, true }, { decision.restart, decision.failed })
  end)
end)
