-- Virtual time and a seeded choice of who runs next. Everything in a simulated world is a task of a process (the world's
-- own have none); a process that is killed never runs again, and closes nothing.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class SimTask
---@field state "new"|"running"|"waiting"|"done"|"failed"
local Task = {}
Task.__index = Task
Task.__name = "task"

---@class Scheduler
---@field time number      seconds since the world began
---@field random fun(n?: integer): number
---@field steps integer
---@field after_step? fun(task: SimTask)
local Scheduler = {}
Scheduler.__index = Scheduler

---@param random fun(n?: integer): number  like math.random
---@return Scheduler
function M.new(random)
  return setmetatable({ time = 0, random = random, ready = {}, timers = {}, steps = 0, numbers = 0 }, Scheduler)
end

-- ---- timers: a binary heap by time, then by the order in which they were set --------------------

local function before(a, b) return a.at < b.at or a.at == b.at and a.number < b.number end

function Scheduler:at(time, action, process)
  self.numbers = self.numbers + 1
  local heap, timer = self.timers, { at = time, number = self.numbers, action = action, process = process }
  local i = #heap + 1
  heap[i] = timer
  while i > 1 and before(heap[i], heap[i // 2]) do
    heap[i], heap[i // 2] = heap[i // 2], heap[i]
    i = i // 2
  end
  return timer
end

function Scheduler:after(seconds, action, process) return self:at(self.time + seconds, action, process) end

local function pop_timer(heap)
  local first, last = heap[1], table.remove(heap)
  if #heap == 0 then return first end
  heap[1] = last
  local i = 1
  while true do
    local child = 2 * i
    if child > #heap then break end
    if child < #heap and before(heap[child + 1], heap[child]) then child = child + 1 end
    if not before(heap[child], heap[i]) then break end
    heap[i], heap[child] = heap[child], heap[i]
    i = child
  end
  return first
end

-- ---- tasks --------------------------------------------------------------------------------------

local function make_ready(self, task)
  if task.queued then return end
  task.queued = true
  self.ready[#self.ready + 1] = task
end

local function cancelled() return runtime.error("cancelled", "cancelled") end

function Scheduler:spawn(process, fn, ...)
  self.numbers = self.numbers + 1
  local task = setmetatable({ sched = self, process = process, state = "new", joins = {}, number = self.numbers }, Task)
  local arguments = table.pack(...)
  -- Protected at its bottom, so that an error closes its variables while it can still wait.
  task.co = coroutine.create(function()
    if task.cancel_pending then error(task.reason or cancelled(), 0) end
    local results = table.pack(pcall(fn, table.unpack(arguments, 1, arguments.n)))
    if not results[1] then error(results[2], 0) end
    return table.unpack(results, 2, results.n)
  end)
  make_ready(self, task)
  return task
end

local function resume(self, task)
  local previous = self.current
  self.current, task.state = task, "running"
  local results = table.pack(coroutine.resume(task.co))
  self.current = previous
  if coroutine.status(task.co) ~= "dead" then
    task.state = "waiting"
    return
  end
  task.state, task.results = results[1] and "done" or "failed", results
  for _, wait in ipairs(task.joins) do self:wake(wait, "woken") end
  task.joins = {}
end

function Scheduler:wake(wait, outcome)
  if wait.outcome then return end
  wait.outcome = outcome
  make_ready(self, wait.task)
end

--- Waits in the current task: "woken" or "timeout"; raises where it is cancelled.
---@param timeout? number
---@param arm? fun(wait: table)
---@return "woken"|"timeout"
function Scheduler:wait(timeout, arm)
  local task = assert(self.current, "a wait outside of any task")
  if task.cancel_pending then
    task.cancel_pending = false
    error(task.reason or cancelled(), 0)
  end
  local wait = { task = task }
  if arm then arm(wait) end
  if timeout then self:after(timeout, function() self:wake(wait, "timeout") end, task.process) end
  task.wait = wait
  if not wait.outcome then coroutine.yield() end
  while not wait.outcome do coroutine.yield() end
  task.wait = nil
  if wait.outcome == "cancelled" then error(task.reason or cancelled(), 0) end
  return wait.outcome
end

function Scheduler:sleep(seconds) self:wait(seconds) end

function Task:status() return self.state end

function Task:ended() return self.state == "done" or self.state == "failed" end

function Task:cancel(reason)
  if self:ended() then return false end
  if type(reason) == "string" then reason = runtime.error("cancelled", reason) end
  self.reason = reason
  if self.wait and not self.wait.outcome then self.sched:wake(self.wait, "cancelled") else self.cancel_pending = true end
  return true
end

function Task:await(timeout)
  if not self:ended() then
    if self.sched.current == self then error "a task cannot wait for its own end" end
    self.sched:wait(timeout, function(wait) table.insert(self.joins, wait) end)
  end
  if not self:ended() then return nil, runtime.error("timeout", "the task did not end in time") end
  if self.state == "failed" then error(self.results[2], 0) end
  return table.unpack(self.results, 2, self.results.n)
end

function Task:__close()
  if self:ended() then return end
  self:cancel()
  self.sched:wait(nil, function(wait) table.insert(self.joins, wait) end)
end

Task.__tostring = function(self) return ("task %d (%s)"):format(self.number, self.state) end

-- ---- the loop -----------------------------------------------------------------------------------

local function runs(process) return not process or not process.dead end

--- Runs until `done()` says so, nothing can happen any more, or the time is up.
---@param done fun(): boolean
---@param most number  seconds of the world
---@return "done"|"stuck"|"late"
function Scheduler:run(done, most)
  while not done() do
    if self.time > most then return "late" end
    local count = #self.ready
    if count > 0 then
      local at = self.random(count)
      local task = self.ready[at]
      self.ready[at] = self.ready[count]
      self.ready[count] = nil
      task.queued = false
      if runs(task.process) and not task:ended() then
        self.steps = self.steps + 1
        resume(self, task)
        if self.after_step then self.after_step(task) end
      end
    else
      local timer = self.timers[1] and pop_timer(self.timers)
      if not timer then return "stuck" end
      if runs(timer.process) then
        self.time = timer.at
        timer.action()
      end
    end
  end
  return "done"
end

return M
