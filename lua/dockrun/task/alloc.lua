--- An allocation: one of a group's `count`, with a task of each kind. Decides when a task may start, and which
--- tasks stop together. Knows its agent only as TaskEnv. A replacement of this file has `new`, `each` and the methods below.
---
---   prestart tasks, and prestart sidecars  ->  main tasks  ->  poststart tasks     -> poststop tasks
---   must have completed     must run           until they end  once the main run      once all main tasks ended
---
--- (https://developer.hashicorp.com/nomad/docs/job-specification/lifecycle), and `depends_on` between any two.
local allocdir = require "dockrun.driver.allocdir"
local dependencies = require "dockrun.job.dependencies"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class TaskEnv  what a task and its allocation get from their agent; they know nothing else of it
---@field engine table                 a connection to the engine, see core/docker
---@field options table<string, any>   see options.lua
---@field state Store
---@field emitter { emit: fun(self, task: table, name: string, fields?: table): table }
---@field hooks Hooks
---@field images ImagePuller
---@field watch table                  the engine's events, see driver/events.lua
---@field ports table                  the host's ports that this process holds, see dockrun.core.ports
---@field bind_ip string               the address that ports are bound on
---@field attributes table<string, string>  of the node, for `${attr.…}`
---@field node table<string, string>   for `${node.…}`
---@field random fun(): number         from [0, 1)
---@field is_alive fun(owner: Owner): boolean
---@field on_transition? fun(task: Task, from: string, to: string, cause: string)
---@field on_log? fun(task: Task, is_reattached?: boolean)  follows a task's output, in a fiber of its own
---@field on_progress? fun(task: Task, current: integer, total: integer)  of a pull, in bytes
---@field warn fun(err: table)         prints an error that stops no task
---@field limitation fun(task: table, text: string)  prints a limit that the engine did not apply
---@field stop_async fun(job: string, reason?: string)  stops a job and does not wait for it
---@field alloc_ended fun(alloc: Alloc)  to be called once every task of an allocation has ended

---@class Alloc
---@field services TaskEnv
---@field id string
---@field index integer
---@field tasks Task[]
---@field stopping? string  why it is being stopped
---@field began boolean     a container of it has run
---@field job string
---@field group string
---@field created number    seconds since 1970
local Alloc = {}
Alloc.__index = Alloc

---@param services TaskEnv
---@param which { id: string, job: string, group: string, index: integer, created: number }
---@return Alloc
function M.new(services, which)
  return setmetatable({
    services = services, id = which.id, index = which.index, job = which.job, group = which.group, created = which.created,
    tasks = {}, waiting = {}, began = false,
  }, Alloc)
end

--- Records it. The caller opens a transaction of the store, if it needs one.
---@return true? ok
---@return table? err
function Alloc:save()
  return self.services.state:put_alloc {
    id = self.id, job = self.job, group = self.group, index = self.index,
    meta = { created = self.created, stopping = self.stopping },
  }
end

local function stage(task) return dependencies.stage(task.context.spec) end
local function is_sidecar(task) return task.context.spec.lifecycle ~= nil and task.context.spec.lifecycle.sidecar end
local function is_main(task) return stage(task) == "main" end
local function is_finite(task) return stage(task) ~= "poststop" and not is_sidecar(task) end

local function all(tasks, selects, holds)
  for _, task in ipairs(tasks) do
    if selects(task) and not holds(task) then return false end
  end
  return true
end

-- ---- when a task starts ------------------------------------------------------------------------

-- Whether a task fulfils the condition of another: true; false, why if it never will; nil if it still may.
local reached = {
  started = function(other)
    if other.started then return true end
    if other:ended() then return false, "never started" end
  end,
  healthy = function(other)
    if other:is_healthy() then return true end
    if other:ended() then return false, "exited first" end
  end,
  completed = function(other)
    if other.succeeded then return true end
    if other:ended() then return false, "did not complete" end
  end,
}

-- The conditions of a task: { other task, condition }.
local function conditions(alloc, task)
  local list, own = {}, stage(task)
  for _, other in ipairs(alloc.tasks) do
    local on = (task.context.spec.depends_on or {})[other.name]
    if on then list[#list + 1] = { other, on } end
    if stage(other) == "prestart" and (own == "main" or own == "poststart") then
      list[#list + 1] = { other, is_sidecar(other) and "started" or "completed" }
    end
    if is_main(other) and own == "poststart" then list[#list + 1] = { other, "started" } end
  end
  return list
end

local function may_begin(alloc, task)
  if stage(task) == "poststop" then
    if not all(alloc.tasks, is_main, task.ended) then return nil end
    if not alloc.began then return false, "no container of its group ever ran" end
  end
  local all_true = true
  for _, condition in ipairs(conditions(alloc, task)) do
    local other, on = condition[1], condition[2]
    local verdict, why = reached[on](other)
    if verdict == false then
      return false, ("cannot start: depends on '%s' being %s, but '%s' %s"):format(other.name, on, other.name, why)
    end
    all_true = all_true and verdict
  end
  return all_true or nil
end

--- Waits until a task may start.
---@param task Task
---@return true? ok
---@return table? err  kind "order": it can never start
function Alloc:wait_for_dependencies(task)
  while true do
    local verdict, why = may_begin(self, task)
    if verdict then return true end
    if verdict == false then return nil, runtime.error("order", why) end
    local woken = queue.new()
    table.insert(self.waiting, woken)
    woken:pop()
  end
end

-- ---- how an allocation stops ------------------------------------------------------------------

-- The tasks that stop together, stage by stage. Poststop tasks are not stopped: they start now.
local shutdown_order = {
  function(task) return task.context.spec.leader end,
  is_finite,
  function(task) return stage(task) ~= "poststop" end,
}

--- Calls a method of several tasks at the same time, and waits for all of the calls.
---@param tasks Task[]
---@param method string
function M.each(tasks, method, ...)
  local pending = {}
  for i, task in ipairs(tasks) do pending[i] = runtime.spawn_free(task[method], task, ...) end
  for _, fiber in ipairs(pending) do fiber:join() end
end

local function stop_tasks(self, selects, reason)
  local tasks = {}
  for _, task in ipairs(self.tasks) do
    if selects(task) and not task:ended() then tasks[#tasks + 1] = task end
  end
  M.each(tasks, "stop", reason)
  for _, task in ipairs(tasks) do task.fiber:join() end
end

--- Records that it is being stopped, so that another process can finish this.
---@param reason? string
function Alloc:mark_stopping(reason)
  if self.stopping then return end
  self.stopping = reason or "stopped"
  local ok, err = self:save()
  if not ok then self.services.warn(err) end
end

--- Stops its tasks as the job says, the leader first, sidecars last. Returns once they have ended; poststop tasks run
--- then. A second stop waits with the first.
---@param reason? string
function Alloc:stop(reason)
  self:mark_stopping(reason)
  for _, selects in ipairs(shutdown_order) do stop_tasks(self, selects, reason) end
end

-- Starts to stop the tasks from this stage on, and does not wait. Once for each stage.
local function end_others(self, reason, first)
  if self.ending and self.ending <= first then return end
  self.ending = first
  runtime.spawn_free(function()
    for i = first, #shutdown_order do stop_tasks(self, shutdown_order[i], reason) end
  end)
end

--- To be called when a task has changed its state.
---@param task Task
function Alloc:changed(task)
  self.began = self.began or task.started
  local waiting = self.waiting
  self.waiting = {}
  for _, woken in ipairs(waiting) do woken:push(true) end  -- first: a task that can never start fails before it is stopped
  if task:ended() and stage(task) ~= "poststop" then
    if task.state == "failed" then
      end_others(self, ("task '%s' of its group failed"):format(task.name), 1)
    elseif task.context.spec.leader then
      end_others(self, ("its group's leader '%s' ended"):format(task.name), 1)
    elseif all(self.tasks, is_finite, task.ended) then
      end_others(self, "the tasks that it serves have ended", 3)
    end
  end
end

--- Gives its tasks another version of their job, which needs no other container. Checks and restart policies change at once,
--- the rest at the next start.
---@param job table
---@param group table
function Alloc:redefine(job, group)
  for _, task in ipairs(self.tasks) do
    for _, spec in ipairs(group.tasks) do
      if spec.name == task.name then task:redefine(job, group, spec) end
    end
  end
end

--- Continues an allocation of another process: applies the end of its ended tasks to the others, and continues its stop if it
--- was being stopped.
function Alloc:resume()
  for _, task in ipairs(self.tasks) do
    if task:ended() then self:changed(task) end
  end
  if self.stopping then runtime.spawn(self.stop, self, self.stopping) end
end

--- To be called when a task has ended. Removes the directories after the last one, unless a container that uses them is left.
---@return true? ok
---@return table? err
function Alloc:task_ended()
  local root, kept
  for _, task in ipairs(self.tasks) do
    if not task:ended() then return true end
    root, kept = root or task.context.dirs and task.context.dirs.root, kept or task.container_id
  end
  local ok, err = true, nil
  if not kept then ok, err = allocdir.remove(root or allocdir.of(self.services.options.state_dir, self.id, "").root) end
  self.services.alloc_ended(self)
  return ok, err
end

return M
