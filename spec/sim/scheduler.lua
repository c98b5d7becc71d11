-- Virtual time and a seeded choice of the next fiber. All code of a simulated world runs in fibers, each of a process (the
-- world's own fibers have none). A process that is killed never runs again, and closes nothing.
--
-- Fibers behave as in core/runtime/fiber.c: a cancel raises once, where the fiber waits, or at its next wait.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class SimFiber
---@field state "new"|"running"|"waiting"|"done"|"failed"
---@field observed boolean  another fiber has read its outcome, or cancelled it
---@field budget? table      shared with the fibers that it spawned: `spent` is why they must end
local Fiber = {}
Fiber.__index = Fiber
Fiber.__name = "fiber"

---@class Scheduler
---@field time number      seconds since the world began
---@field random fun(n?: integer): number
---@field steps integer
---@field current? SimFiber
---@field after_step? fun()
---@field on_failure? fun(fiber: SimFiber)  a fiber ended by an error
local Scheduler = {}
Scheduler.__index = Scheduler

---@param random fun(n?: integer): number  like math.random
---@return Scheduler
function M.new(random)
  return setmetatable({ time = 0, random = random, ready = {}, timers = {}, steps = 0, numbers = 0, stale = 0 }, Scheduler)
end

local function runs(process) return not process or not process.dead end

-- ---- timers: a binary heap by time, then by the order in which they were set --------------------

---@param time number
---@param action fun()
---@param process? table  it is dropped with the process
---@return table timer  without its `action` it has no effect
function Scheduler:at(time, action, process)
  self.numbers = self.numbers + 1
  local heap, timer = self.timers, { at = time, number = self.numbers, action = action, process = process }
  local i = #heap + 1
  while i > 1 do
    local parent = heap[i // 2]
    if parent.at <= time then break end  -- of equal times the earlier timer comes first
    heap[i] = parent
    i = i // 2
  end
  heap[i] = timer
  return timer
end

---@param seconds number
---@param action fun()
---@param process? table
---@return table timer
function Scheduler:after(seconds, action, process) return self:at(self.time + seconds, action, process) end

local function pop_timer(heap)
  local first, count = heap[1], #heap
  local last = heap[count]
  heap[count] = nil
  count = count - 1
  if count == 0 then return first end
  local at, number, i = last.at, last.number, 1
  while true do
    local child = 2 * i
    if child > count then break end
    local one, other = heap[child], heap[child + 1]
    if other and (other.at < one.at or other.at == one.at and other.number < one.number) then one, child = other, child + 1 end
    if at < one.at or at == one.at and number < one.number then break end
    heap[i] = one
    i = child
  end
  heap[i] = last
  return first
end

-- Removes cancelled timers.
local function compact(self)
  local left = {}
  for _, timer in ipairs(self.timers) do
    if timer.action then left[#left + 1] = timer end
  end
  -- A sorted list is a heap.
  table.sort(left, function(a, b) return a.at < b.at or a.at == b.at and a.number < b.number end)
  self.timers, self.stale = left, 0
end

--- Cancels a timer.
---@param timer table
function Scheduler:cancel_timer(timer)
  if not timer.action then return end
  timer.action = nil
  self.stale = self.stale + 1
  if self.stale > 100 and self.stale > #self.timers // 2 then compact(self) end
end

-- ---- fibers -------------------------------------------------------------------------------------

local function make_ready(self, fiber)
  if fiber.queued then return end
  fiber.queued = true
  self.ready[#self.ready + 1] = fiber
end

local function cancelled() return runtime.error("cancelled", "cancelled") end

-- A message with a place in the source is an internal error: keep its traceback.
local function with_traceback(err)
  local is_bug = type(err) == "string" and err:find "%.lua:%d+:"
  return is_bug and { bug = debug.traceback(coroutine.running(), err, 2), text = err } or err
end

---@param process? table
---@param fn fun(...): any
---@return SimFiber
function Scheduler:spawn(process, fn, ...)
  self.numbers = self.numbers + 1
  local fiber = setmetatable({ sched = self, process = process, state = "new", joins = {}, number = self.numbers, observed = false }, Fiber)
  fiber.budget = process and self.current and self.current.budget
  local arguments = table.pack(...)
  -- Protected at the bottom, so that after an error its variables are closed while it can still wait.
  fiber.co = coroutine.create(function() return xpcall(fn, with_traceback, table.unpack(arguments, 1, arguments.n)) end)
  if process then process.fibers[fiber.number] = fiber end
  make_ready(self, fiber)
  return fiber
end

local function finish(self, fiber, ok, ...)
  if not ok and type((...)) == "table" and (...).bug then
    fiber.bug = (...).bug
    fiber.results = table.pack((...).text)
  else
    fiber.results = table.pack(...)
  end
  fiber.state = ok and "done" or "failed"
  if fiber.process then fiber.process.fibers[fiber.number] = nil end
  for _, wait in ipairs(fiber.joins) do
    fiber.observed = true
    self:wake(wait, "woken")
  end
  fiber.joins = nil
  if not ok and self.on_failure then self.on_failure(fiber) end
end

local function resumed(self, fiber, alive, ...)
  if coroutine.status(fiber.co) ~= "dead" then
    fiber.state = "waiting"
  elseif alive then
    finish(self, fiber, ...)
  else
    finish(self, fiber, false, ...)
  end
end

local function resume(self, fiber)
  local previous = self.current
  self.current = fiber
  if fiber.state == "new" and fiber.cancel_pending then
    finish(self, fiber, false, fiber.reason or cancelled())
  else
    fiber.state = "running"
    resumed(self, fiber, coroutine.resume(fiber.co))
  end
  self.current = previous
end

---@param wait table
---@param outcome "woken"|"timeout"|"cancelled"
function Scheduler:wake(wait, outcome)
  if wait.outcome then return end
  wait.outcome = outcome
  if wait.timer then self:cancel_timer(wait.timer) end
  make_ready(self, wait.fiber)
end

--- Waits in the current fiber: "woken" or "timeout"; raises if it is cancelled.
---@param timeout? number
---@param arm? fun(wait: table)
---@return "woken"|"timeout"
function Scheduler:wait(timeout, arm)
  local fiber = assert(self.current, "a wait outside of any fiber")
  if fiber.budget and fiber.budget.spent then error(runtime.error("cancelled", fiber.budget.spent), 0) end
  if fiber.cancel_pending then
    fiber.cancel_pending = false
    error(fiber.reason or cancelled(), 0)
  end
  local wait = { fiber = fiber }
  if arm then arm(wait) end
  if timeout then wait.timer = self:after(timeout, function() self:wake(wait, "timeout") end, fiber.process) end
  fiber.wait = wait
  repeat coroutine.yield() until wait.outcome
  fiber.wait = nil
  if wait.outcome == "cancelled" then error(fiber.reason or cancelled(), 0) end
  return wait.outcome
end

function Fiber:status() return self.state end

function Fiber:ended() return self.state == "done" or self.state == "failed" end

function Fiber:cancel(reason)
  if self:ended() then return false end
  if type(reason) == "string" then reason = runtime.error("cancelled", reason) end
  self.reason, self.observed = reason, true
  if self.wait and not self.wait.outcome then self.sched:wake(self.wait, "cancelled") else self.cancel_pending = true end
  return true
end

--- Ends the fiber and all that it spawned, even if they catch errors: each wait raises.
---@param why? string
function Fiber:kill(why)
  if self:ended() then return end
  self.budget = self.budget or {}
  self.budget.spent = why or "killed"
  local numbers = {}
  for number, fiber in pairs(self.process.fibers) do
    if fiber.budget == self.budget then numbers[#numbers + 1] = number end
  end
  table.sort(numbers)
  for _, number in ipairs(numbers) do self.process.fibers[number]:cancel() end
end

local function join(self, timeout)
  if self:ended() then return end
  if self.sched.current == self then error("a fiber cannot wait for its own end", 0) end
  self.sched:wait(timeout, function(wait) table.insert(self.joins, wait) end)
end

-- No budgets here: code in a simulation ends when it is asked to.
function Fiber:kill(why) self:cancel(why or "killed") end

function Fiber:await(timeout)
  join(self, timeout)
  if not self:ended() then return nil, runtime.error("timeout", "the fiber did not end in time") end
  self.observed = true
  if self.state == "failed" then error(self.results[1], 0) end
  return table.unpack(self.results, 1, self.results.n)
end

function Fiber:join()
  join(self)
  self.observed = true
end

function Fiber:__close()
  self:cancel()
  self.observed = true
  join(self)
end

Fiber.__tostring = function(self) return ("fiber %d (%s)"):format(self.number, self.state) end

-- ---- the loop -----------------------------------------------------------------------------------

--- Runs until `done()` is true, no event is left, or the time is over.
---@param done fun(): boolean?
---@param most number  in the world's seconds
---@return "done"|"stuck"|"late"
function Scheduler:run(done, most)
  local ready, random = self.ready, self.random
  while not done() do
    local count = #ready
    if count > 0 then
      local at = random(count)
      local fiber = ready[at]
      ready[at] = ready[count]
      ready[count] = nil
      fiber.queued = false
      if runs(fiber.process) and not fiber:ended() then
        if fiber.process then fiber.process:tick() end  -- it may be killed there
        if runs(fiber.process) then
          self.steps = self.steps + 1
          resume(self, fiber)
        end
        if self.after_step then self.after_step() end
      end
    else
      local timer = self.timers[1] and pop_timer(self.timers)
      if not timer then return "stuck" end
      if not timer.action then self.stale = self.stale - 1 end
      if timer.action and runs(timer.process) then
        self.time = timer.at
        if self.time > most then return "late" end
        local action = timer.action
        timer.action = nil
        action()
        if self.after_step then self.after_step() end
      end
    end
  end
  return "done"
end

return M
