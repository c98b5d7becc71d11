--- Waits for the tasks of an agent, of one job or of all: methods of an Agent, see init.lua. Changes nothing.
local dependencies = require "dockrun.job.dependencies"
local runtime = require "dockrun.core.runtime"

---@class Agent
local M = {}

local function tasks_of(self, job)
  local list = {}
  for _, task in ipairs(self.tasks) do
    if task.job == job then list[#list + 1] = task end
  end
  return list
end

--- Whether every task of a job has ended.
---@param job string
---@return boolean
function M:job_has_ended(job)
  for _, task in ipairs(tasks_of(self, job)) do
    if not task:ended() then return false end
  end
  return true
end

--- Waits until every task that a job has now has ended.
---@param job string
function M:await_job(job)
  for _, task in ipairs(tasks_of(self, job)) do task.fiber:await() end
end

-- Until every task has ended, including tasks that start meanwhile.
local function await_all(self)
  local i = 1
  while self.tasks[i] do
    self.tasks[i].fiber:await()
    i = i + 1
  end
end

--- Waits until every task has ended.
---@return boolean ok  no task failed
function M:wait()
  await_all(self)
  for _, task in ipairs(self.tasks) do
    if task.state == "failed" then return false end
  end
  return true
end

local function is_last(task) return dependencies.stage(task.context.spec) == "poststop" end

-- Whether a task runs, waits for a restart, or has ended. A poststop task starts later and is not waited for. If its allocation
-- is ending, a task settles only by ending.
local function has_settled(task)
  if task:ended() then return true end
  if task.stopping or task.alloc.ending then return false end
  return is_last(task) or task.watching or task.started and task.state == "waiting"
end

-- All at one moment: a caller that ends then leaves no call of the engine half done.
local function await_each(tasks, is_so)
  local all
  repeat
    all = true
    for _, task in ipairs(tasks) do all = all and is_so(task) end
    if not all then runtime.sleep(0.02) end
  until all
end

local function is_healthy(task) return task:ended() or is_last(task) and not task.alloc.ending or task:is_healthy() end

local function failures_of(tasks)
  local failures = {}
  for _, task in ipairs(tasks) do
    if task.state == "failed" then
      failures[#failures + 1] = ("%s[%d].%s: %s"):format(task.group, task.alloc.index, task.name, task.error or "it failed")
    end
  end
  return failures
end

--- Why tasks of a job failed: a sentence for each failed task.
---@param job string
---@return string[] failures
function M:failures(job) return failures_of(tasks_of(self, job)) end

--- Waits until every task of a job runs, or has ended.
---@param job string
---@return string[] failures
function M:await_running(job)
  local tasks = tasks_of(self, job)
  await_each(tasks, has_settled)
  return failures_of(tasks)
end

--- Waits until every task of a job is healthy, or has ended.
---@param job string
---@return string[] failures
function M:await_healthy(job)
  local tasks = tasks_of(self, job)
  await_each(tasks, is_healthy)
  return failures_of(tasks)
end

return M
