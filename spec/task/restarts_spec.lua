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

  it("counts its first interval from the task's own beginning, and each later one from the first end in it", function()
    local tracked = tracker(policy "fail")  -- at 100
    now = 155
    tracked:decide(failure)
    now = 161  -- the first interval is over
    assert.equal(1, tracked:decide(failure).attempt)
    now = 221  -- exactly at the end of the one that began at 161
    assert.equal(2, tracked:decide(failure).attempt)
    now = 222
    assert.equal(1, tracked:decide(failure).attempt)
  end)

  it("counts good ends of a service as well", function()
    local tracked = tracker(policy "fail", true)
    assert.is_true(tracked:decide(success).restart)
    assert.is_true(tracked:decide(success).restart)
    local last = tracked:decide(success)
    assert.same({ false, true }, { last.restart, last.failed })
  end)

  it("adds nothing to a delay of 0, and never a whole quarter", function()
    local tracked = tracker { attempts = 9, interval = 60, delay = 0, mode = "fail" }
    dice = 0.999999
    assert.equal(0, tracked:decide(failure).delay)
    tracked = tracker(policy("fail", 9))
    dice = 0.999999
    local delay = tracked:decide(failure).delay
    assert.is_true(delay > 12.49 and delay < 12.5)
  end)

  it("waits with mode delay for what is left of the interval alone: no jitter", function()
    local tracked = tracker(policy("delay", 1))
    dice = 0.9
    now = 110
    tracked:decide(failure)
    now = 130
    assert.equal(30, tracked:decide(failure).delay)
    now = 160
    assert.equal(0, tracked:decide(failure).delay)
  end)

  -- Which tasks begin anew after exit code 0: NewRestartTracker of Nomad.
  local lifecycle = require "dockrun.task.lifecycle"
  for _, case in ipairs {
    { "service", nil, true }, { "batch", nil, false },
    { "service", { hook = "prestart" }, false }, { "service", { hook = "prestart", sidecar = true }, true },
    { "batch", { hook = "prestart", sidecar = true }, true }, { "service", { hook = "poststart" }, false },
    { "batch", { hook = "poststart", sidecar = true }, true }, { "service", { hook = "poststop" }, false },
    { "service", { hook = "poststop", sidecar = true }, false },
  } do
    local kind, stanza, again = table.unpack(case)
    local what = stanza and ("a %s%s task of a %s"):format(stanza.hook, stanza.sidecar and " sidecar" or "", kind) or "a task of a " .. kind
    it(("%s %s that ended well"):format(again and "restarts" or "leaves alone", what), function()
      local task = lifecycle.new({ random = math.random }, { id = "a" }, {
        job = { name = "j", type = kind }, group = { name = "g" },
        spec = { name = "t", lifecycle = stanza, restart = policy() },
      })
      assert.equal(again, task.restarts:decide(success).restart)
    end)
  end

  it("has defaults of its own for services and for batch jobs, and is merged from the group to the task", function()
    local load = require "dockrun.job.load"
    local function read(kind, group, task)
      local job = assert(load.string(([[return { name = "j", type = %q, group = { g = { %s task = { t = {
        config = { image = "x" }, %s } } } } }]]):format(kind, group or "", task or ""), "lua", "spec"))
      return job.groups[1].tasks[1].restart
    end
    assert.same({ attempts = 2, interval = 1800, delay = 15, mode = "fail" }, read "service")
    assert.same({ attempts = 3, interval = 86400, delay = 15, mode = "fail" }, read "batch")
    assert.same({ attempts = 5, interval = 600, delay = 15, mode = "delay" },
      read("service", [[restart = { interval = "10m", mode = "delay", attempts = 1 },]], "restart = { attempts = 5 },"))
  end)
end)
