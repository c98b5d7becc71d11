--- The life of one task, as the state machine of transitions.lua: runs it from its first hook to its clean-up. Knows nothing
--- of other tasks but through its allocation, and nothing of its agent but TaskEnv (alloc.lua). A replacement of this file has
--- `transitions`, `new`, and the methods of a Task that agent/ and alloc.lua call.
---
--- A stop cancels at once what a task waits for: its dependencies, a pull, a hook, a delay. If the engine is creating or starting
--- a container, the task first waits for the answer, so that no unrecorded container is left.
local retry = require "dockrun.driver.retry"
local container = require "dockrun.task.container"
local containers = require "dockrun.driver.containers"
local driver = require "dockrun.driver.docker"
local handles = require "dockrun.driver.handle"
local network = require "dockrun.driver.network"
local health = require "dockrun.task.health"
local internal = require "dockrun.util.internal"
local oom = require "dockrun.task.oom"
local snapshot = require "dockrun.task.snapshot"
local revalidate = require "dockrun.job.revalidate"
local restarts = require "dockrun.task.restarts"
local runtime = require "dockrun.core.runtime"
local setup = require "dockrun.task.setup"
local time = require "dockrun.util.time"
local transitions = require "dockrun.task.transitions"

local M = {}

M.transitions = transitions.list

-- A port can be lost between our probe and the engine's bind this often before an attempt fails.
local START_ATTEMPTS = 5

---@class Task
---@field services TaskEnv   what its agent gives it
---@field alloc Alloc
---@field context TaskContext
---@field job string         names, for events
---@field group string
---@field name string
---@field alloc_id string
---@field state string       of M.transitions
---@field started boolean    its container has run
---@field succeeded boolean  its work is done
---@field result? TaskResult of the last run
---@field error? table       why it failed before it ran
---@field container_id? string
---@field intent? string     the engine may have a container with it, see driver/labels.lua
---@field answered? boolean   the engine answered the last request to create
---@field current? table    the fiber that a stop cancels
---@field notifying table  the fibers of hooks that only a kill cancels
---@field stopping? table    the error that a stop raises, from its request on
---@field killed boolean     it is being killed
---@field detached boolean   leave the container alone from now on
---@field recovered? Observation  what was found of it, if another process started it
---@field held_ports integer[]  of the host, that this process holds for it
---@field lacks_ports? boolean  those that another process took for it could not be kept
---@field wake_at? number    when its next attempt starts, by runtime.now
---@field started_at? string  RFC 3339: when its container last began to run
local Task = {}
Task.__index = Task
for _, part in ipairs { "hooks", "stop", "restore" } do
  for name, method in pairs(require("dockrun.task." .. part)) do Task[name] = method end
end

-- Whether a task is done when it exits with 0: of a batch job, or a prestart, poststart or poststop task.
local function is_finite(context)
  local lifecycle = context.spec.lifecycle
  if lifecycle then return lifecycle.hook == "poststop" or not lifecycle.sidecar end
  return context.job.type == "batch"
end

---@param services TaskEnv
---@param alloc Alloc
---@param context TaskContext
---@return Task
function M.new(services, alloc, context)
  return setmetatable({
    services = services, alloc = alloc, context = context, state = "received", started = false, succeeded = false,
    detached = false, killed = false, notifying = {}, held_ports = {},
    job = context.job.name, group = context.group.name, name = context.spec.name, alloc_id = alloc.id, ends = {},
    restarts = restarts.new(context.spec.restart, {
      on_success = not is_finite(context), now = runtime.now, random = services.random,
    }),
  }, Task)
end

function Task:emit(name, fields) return self.services.emitter:emit(self, name, fields) end

--- The public status: pending, running, dead or failed.
function Task:status() return containers.status[self.state] or "pending" end

function Task:ended() return self.state == "dead" or self.state == "failed" end

--- Whether its container runs and is not being stopped.
function Task:is_live() return self.state == "running" or self.state == "healthy" or self.state == "unhealthy" end

--- Whether it is healthy: by its checks; without checks, if it runs or its work is done.
function Task:is_healthy()
  if self.state == "healthy" or self.succeeded then return true end
  return self.state == "running" and self.health ~= nil and not self.health:has_sources()
end

--- Changes the state.
---@param state string
---@param cause string  of M.transitions
function Task:transition(state, cause)
  local from = self.state
  if not transitions.allows(from, state, cause) then
    error(("a task cannot change from %s to %s by %s"):format(from, state, cause))
  end
  self.state = state
  self:save(state == "creating")
  if self.services.on_transition then self.services.on_transition(self, from, state, cause) end
  self.alloc:changed(self)
end

--- Records the task. A failure is a warning, and what runs continues. With `needed` it is raised, so that nothing starts
--- that no other process could find.
---@param needed? boolean
function Task:save(needed)
  local state = self.services.state
  -- Snapshot inside of the transaction: it may have waited.
  local ok, err = state:transaction(function() return state:put_task(snapshot.of(self)) end)
  if ok then return end
  if needed then error(err, 0) end
  self.services.warn(err)
end

-- ---- one run of the container -----------------------------------------------------------------

local function launch(self)
  for attempt = 1, START_ATTEMPTS do
    if self.stopping then error(self.stopping, 0) end
    self.intent = self.intent or container.new_intent()
    self:transition("creating", "task")
    container.create(self)
    if self.stopping then error(self.stopping, 0) end
    self:transition("starting", "task")
    local ok, lost, err = container.start(self)
    if ok then return end
    local gone, why = container.discard(self)
    if not gone then error(why, 0) end
    if not lost or attempt == START_ATTEMPTS then error(err, 0) end
    self:transition("setup", "task")
    setup.replace_ports(self, lost)
    self:transition("pulling", "task")
  end
end

local function describe(result)
  if result.error then return result.error end
  if result.oom and result.signal == 9 then return "killed by the kernel: out of memory" end
  local how = result.signal and ("ended by signal %d"):format(result.signal) or ("exit code %d"):format(result.exit_code or -1)
  return result.oom and how .. "; the kernel killed a process of it: out of memory" or how
end

-- Takes the result of the checks. A task that is already ending ignores it.
local function on_health(self, state, why)
  if not self:is_live() or self.state == state then return end
  self:transition(state, "health")
  self:emit(state, { container_id = self.container_id, message = why })
  self:notify_hook(state, { id = self.container_id, reason = why })
end

--- Waits for the end of the container: from running to exited.
---@param kernel OomWatch
function Task:watch_end(kernel)
  local ended <close> = health.watch(self, function(state, why) on_health(self, state, why) end)
  self.health = ended
  self.alloc:changed(self)  -- a task without checks is healthy now
  if self.stopping then runtime.spawn(self.halt, self, "user") end  -- the stop came during the start
  if self.detached then error(runtime.error("cancelled", "detached"), 0) end
  self.watching = true
  local result = driver.wait(self.services.engine, self.container_id, self.events, function(event)
    if event.action == "oom" then kernel:seen() end
    ended:seen(event)
  end)
  self.watching = false
  result.oom = result.oom or kernel:count() > 0
  self.result, self.finished_at = result, time.format()
  self:transition("exited", "engine")
  self:emit("exited", {
    container_id = self.container_id, exit_code = result.exit_code, signal = result.signal, oom = result.oom,
    message = describe(result),
  })
  for _, waiting in ipairs(self.ends) do waiting:push(true) end
  self.ends = {}
  self:notify_hook("exited", result)
end

--- One attempt: from its image to the end of its container.
function Task:run_once()
  self.result = nil
  if self.container_id then
    local gone, why = container.discard(self)
    if not gone then error(why, 0) end
  end
  setup.regain_ports(self)
  self:cancellable(container.pull, self)
  launch(self)
  self.started, self.started_at = true, time.format()
  self:transition("running", "task")
  local handle = handles.format(self.context.image.id, self.container_id)
  self:emit("started", {
    container_id = self.container_id, image_id = self.context.image.id, ports = self.context.ports, message = handle,
  })
  local kernel <close> = oom.watch(self)  -- at once: a short task may run out of memory while its hook runs
  if self.services.on_log then self.logs = runtime.spawn(self.services.on_log, self) end
  local ok, err = pcall(self.cancellable, self, function()
    local address = network.advertised(self.services.engine, self.container_id, self.context.resolved.config)
    self:notify_hook("started", { id = self.container_id, handle = handle, address = address })
  end)
  if not ok and not self.stopping then error(err, 0) end
  self:watch_end(kernel)
end

--- Marks its work as already done: it does not start.
function Task:skip() self.state, self.succeeded = "dead", true end

-- ---- the whole life ---------------------------------------------------------------------------

-- Kinds of errors that may be gone at the next attempt: the engine, the registry or the state is unavailable for now.
local passing = { full = true, busy = true, readonly = true, store = true }

local function may_pass(err)
  if type(err) ~= "table" then return false end
  if err.kind == "pull" then return not err.final end
  return passing[err.kind] or retry.is_transient(err)
end

-- Decides about a restart, by the policy and the `restart` hooks.
local function decide(self, err)
  local result = self.result
  local decision = self.restarts:decide {
    success = result and result.exit_code == 0 and not result.error and not self.restart_wanted,
    unrecoverable = err ~= nil and not may_pass(err), awaited = self.alloc.stopping ~= nil,
  }
  self.restart_wanted = nil
  local ok, veto = self:cancellable(self.run_hook, self, "restart", decision)
  if not ok then
    self:emit("hook_failed", { message = tostring(veto) })
    decision.restart, decision.failed, decision.reason = false, true, tostring(veto)
  end
  return decision
end

--- Waits until the next attempt.
function Task:await_attempt()
  self:cancellable(runtime.sleep, math.max(self.wake_at - runtime.now(), 0))
  self.wake_at = nil
  self:transition("pulling", "policy")
end

-- Waits for the next attempt; returns false if there is none.
local function next_attempt(self, err)
  local decision = decide(self, err)
  if not decision.restart then
    if decision.failed and self.restarts.policy.attempts > 0 then
      self:emit("not_restarting", { message = decision.reason, container_id = self.container_id })
    end
    if err then error(err, 0) end
    self.succeeded = not decision.failed
    if decision.failed then
      local why = self.restarts.policy.attempts > 0 and "; " .. decision.reason or ""
      error(runtime.error("failed", describe(self.result) .. why), 0)
    end
    return false
  end
  self.restarts.total = self.restarts.total + 1
  self.wake_at = runtime.now() + decision.delay
  self:transition("waiting", "policy")
  local message = err and ("%s: %s"):format(decision.reason, err) or decision.reason
  self:emit("restarting", { message = message, delay = decision.delay, container_id = self.container_id })
  self:await_attempt()
  return true
end

-- Waits for its dependencies, and sets up what it keeps for its whole life.
local function begin(self)
  self:emit "received"
  local draft = self:draft()
  self:hook("received", draft)
  local ok, err = self:cancellable(self.alloc.wait_for_dependencies, self.alloc, self)
  if not ok then error(err, 0) end
  self:transition("setup", "order")
  setup.setup(self, draft)
  self:transition("pulling", "task")
end

local function live(self)
  local run = self.resume or self.run_once
  if not self.resume then begin(self) end
  repeat
    local ok, err = xpcall(run, internal.handler, self)
    run = self.run_once
    if self.stopping or self.detached then
      if ok then return end
      error(err, 0)
    end
    if not ok and not may_pass(err) then error(err, 0) end
  until not next_attempt(self, not ok and err or nil)
end

local function cause_of_end(self, err)
  if self.state == "received" and self.entry then return "recovery" end
  if self.stopping then return "user" end
  if type(err) == "table" and err.kind == "order" then return "order" end
  return self.state == "exited" and "policy" or "task"
end

local function finish(self, err)
  if err and not self.stopping then
    self.error = err
    self:emit("failed", { message = tostring(err), container_id = self.container_id, traceback = err.traceback })
    self:notify_hook("failed", err)
  end
  -- If the engine failed during a stop, the container may still run.
  if self:is_live() then self:halt "user" end
  if self.state == "stopping" then self:transition("exited", "engine") end
  self:transition("cleanup", cause_of_end(self, err))
  self:notify_hook("cleanup", { container_id = self.container_id })
  container.cleanup(self)
  self:transition((self.succeeded or self.stopping) and "dead" or "failed", "task")
  local ok, why = self.alloc:task_ended()
  if not ok then self:emit("failed", { message = "clean-up: " .. tostring(why) }) end
  if self.stopping then self:notify_hook("stopped", self.result) end
end

--- Runs the whole life. Returns when nothing of the task is left, or it was detached.
function Task:run()
  if self:ended() then return end
  local ok, err = true, nil
  if self.entry ~= "cleanup" then ok, err = xpcall(live, internal.handler, self) end
  -- Cancelled without a stop: this process ends, and the next one continues from here.
  if not ok and not self.stopping and type(err) == "table" and err.kind == "cancelled" then self.detached = true end
  if not self.detached then finish(self, not ok and err or nil) end
end

-- ---- another version --------------------------------------------------------------------------

-- Makes the draft of another version by the first hooks. If one fails, the spec counts.
local function redraft(self)
  local context, draft = self.context, self:draft()
  if not draft or not self:notify_hook("received", draft) or not self:notify_hook("setup", draft) then return nil end
  local task, err = revalidate.hooked(draft, context.spec, context.job, context.group)
  if not task then self:emit("hook_failed", { message = tostring(err) }) end
  return task
end

--- Gives the task another version of its spec, which needs no other container.
---@param job table
---@param group table
---@param spec table
function Task:redefine(job, group, spec)
  local context = self.context
  context.job, context.group, context.spec, context.resolved = job, group, spec, spec
  self.stored, self.stored_draft = nil, nil
  context.draft = redraft(self)
  self.restarts.policy = (context.draft or spec).restart
  if self.state ~= "received" then setup.resolve(self) end
  self:save()
end

return M
