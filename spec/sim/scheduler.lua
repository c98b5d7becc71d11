-- Virtual time and a seeded choice of who runs next. Everything in a simulated world is a task of a process (the world's
-- own have none); a process that is killed never runs again, and closes nothing.
--
-- Tasks are what core/runtime/fiber.c has: a cancel raises once, at the place where the task waits, or at its next wait.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class SimTask
---@field state "new"|"running"|"waiting"|"done"|"failed"
---@field observed boolean  somebody has seen, or caused, how it ended
---@field budget? table      shared with the tasks that it spawned: `spent` is why none of them may go on
local Task = {}
Task.__index = Task
Task.__name = "task"

---@class Scheduler
---@field time number      seconds since the world began
---@field random fun(n?: integer): number
---@field steps integer
---@field current? SimTask
---@field after_step? fun()
---@field on_failure? fun(task: SimTask)  a task ended by an error
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
---@param process? table  with which it goes
---@return table timer  without its `action` it does nothing
function Scheduler:at(time, action, process)
  self.numbers = self.numbers + 1
  local heap, timer = self.timers, { at = time, number = self.numbers, action = action, process = process }
  local i = #heap + 1
  while i > 1 do
    local parent = heap[i // 2]
    if parent.at <= time then break end  -- one that was set earlier comes first
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

-- Takes out what does nothing any more.
local function compact(self)
  local left = {}
  for _, timer in ipairs(self.timers) do
    if timer.action then left[#left + 1] = timer end
  end
  -- In order, which makes it a heap.
  table.sort(left, function(a, b) return a.at < b.at or a.at == b.at and a.number < b.number end)
  self.timers, self.stale = left, 0
end

--- Nothing will happen at it.
---@param timer table
function Scheduler:cancel_timer(timer)
  if not timer.action then return end
  timer.action = nil
  self.stale = self.stale + 1
  if self.stale > 100 and self.stale > #self.timers // 2 then compact(self) end
end

-- ---- tasks --------------------------------------------------------------------------------------

local function make_ready(self, task)
  if task.queued then return end
  task.queued = true
  self.ready[#self.ready + 1] = task
end

local function cancelled() return runtime.error("cancelled", "cancelled") end

-- An error that says where it was raised is one of the program's: its way there is what helps.
local function with_traceback(err)
  local is_bug = type(err) == "string" and err:find "%.lua:%d+:"
  return is_bug and { bug = debug.traceback(coroutine.running(), err, 2), text = err } or err
end

---@param process? table
---@param fn fun(...): any
---@return SimTask
function Scheduler:spawn(process, fn, ...)
  self.numbers = self.numbers + 1
  local task = setmetatable({ sched = self, process = process, state = "new", joins = {}, number = self.numbers, observed = false }, Task)
  task.budget = process and self.current and self.current.budget
  local arguments = table.pack(...)
  -- Protected at its bottom, so that an error closes its variables while it can still wait.
  task.co = coroutine.create(function() return xpcall(fn, with_traceback, table.unpack(arguments, 1, arguments.n)) end)
  if process then process.tasks[task.number] = task end
  make_ready(self, task)
  return task
end

local function finish(self, task, ok, ...)
  if not ok and type((...)) == "table" and (...).bug then
    task.bug = (...).bug
    task.results = table.pack((...).text)
  else
    task.results = table.pack(...)
  end
  task.state = ok and "done" or "failed"
  if task.process then task.process.tasks[task.number] = nil end
  for _, wait in ipairs(task.joins) do
    task.observed = true
    self:wake(wait, "woken")
  end
  task.joins = nil
  if not ok and self.on_failure then self.on_failure(task) end
end

local function resumed(self, task, alive, ...)
  if coroutine.status(task.co) ~= "dead" then
    task.state = "waiting"
  elseif alive then
    finish(self, task, ...)
  else
    finish(self, task, false, ...)
  end
end

local function resume(self, task)
  local previous = self.current
  self.current = task
  if task.state == "new" and task.cancel_pending then
    finish(self, task, false, task.reason or cancelled())
  else
    task.state = "running"
    resumed(self, task, coroutine.resume(task.co))
  end
  self.current = previous
end

---@param wait table
---@param outcome "woken"|"timeout"|"cancelled"
function Scheduler:wake(wait, outcome)
  if wait.outcome then return end
  wait.outcome = outcome
  if wait.timer then self:cancel_timer(wait.timer) end
  make_ready(self, wait.task)
end

--- Waits in the current task: "woken" or "timeout"; raises where it is cancelled.
---@param timeout? number
---@param arm? fun(wait: table)
---@return "woken"|"timeout"
function Scheduler:wait(timeout, arm)
  local task = assert(self.current, "a wait outside of any task")
  if task.budget and task.budget.spent then error(runtime.error("cancelled", task.budget.spent), 0) end
  if task.cancel_pending then
    task.cancel_pending = false
    error(task.reason or cancelled(), 0)
  end
  local wait = { task = task }
  if arm then arm(wait) end
  if timeout then wait.timer = self:after(timeout, function() self:wake(wait, "timeout") end, task.process) end
  task.wait = wait
  repeat coroutine.yield() until wait.outcome
  task.wait = nil
  if wait.outcome == "cancelled" then error(task.reason or cancelled(), 0) end
  return wait.outcome
end

function Task:status() return self.state end

function Task:ended() return self.state == "done" or self.state == "failed" end

function Task:cancel(reason)
  if self:ended() then return false end
  if type(reason) == "string" then reason = runtime.error("cancelled", reason) end
  self.reason, self.observed = reason, true
  if self.wait and not self.wait.outcome then self.sched:wake(self.wait, "cancelled") else self.cancel_pending = true end
  return true
end

--- Ends it and every task that it spawned, whatever they catch: each wait raises.
---@param why? string
function Task:kill(why)
  if self:ended() then return end
  self.budget = self.budget or {}
  self.budget.spent = why or "killed"
  local numbers = {}
  for number, task in pairs(self.process.tasks) do
    if task.budget == self.budget then numbers[#numbers + 1] = number end
  end
  table.sort(numbers)
  for _, number in ipairs(numbers) do self.process.tasks[number]:cancel() end
end

local function join(self, timeout)
  if self:ended() then return end
  if self.sched.current == self then error("a fiber cannot wait for its own end", 0) end
  self.sched:wait(timeout, function(wait) table.insert(self.joins, wait) end)
end

-- Nothing here has limits: what runs in a simulation ends when it is told to.
function Task:kill(why) self:cancel(why or "killed") end

function Task:await(timeout)
  join(self, timeout)
  if not self:ended() then return nil, runtime.error("timeout", "the task did not end in time") end
  self.observed = true
  if self.state == "failed" then error(self.results[1], 0) end
  return table.unpack(self.results, 1, self.results.n)
end

function Task:join()
  join(self)
  self.observed = true
end

function Task:__close()
  self:cancel()
  self.observed = true
  join(self)
end

Task.__tostring = function(self) return ("task %d (%s)"):format(self.number, self.state) end

-- ---- the loop -----------------------------------------------------------------------------------

--- Runs until `done()` says so, nothing can happen any more, or the time is up.
---@param done fun(): boolean?
---@param most number  seconds of the world
---@return "done"|"stuck"|"late"
function Scheduler:run(done, most)
  local ready, random = self.ready, self.random
  while not done() do
    local count = #ready
    if count > 0 then
      local at = random(count)
      local task = ready[at]
      ready[at] = ready[count]
      ready[count] = nil
      task.queued = false
      if runs(task.process) and not task:ended() then
        if task.process then task.process:tick() end  -- which may be its last
        if runs(task.process) then
          self.steps = self.steps + 1
          resume(self, task)
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
