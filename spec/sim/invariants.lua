-- The invariants of a simulated world, checked at every step, at every transition of a task, when a process ends, when the
-- world is at rest, and at the end.
local engines = require "spec.sim.engine"
local final = require "spec.sim.final"

local M = {}

---@class Invariants
---@field world World
---@field seen table<table, table>  by task of the policy: the state of its restart policy, counted independently
local Invariants = {}
Invariants.__index = Invariants

---@param world World
---@return Invariants
function M.new(world) return setmetatable({ world = world, changes = -1, seen = setmetatable({}, { __mode = "k" }) }, Invariants) end

-- ---- at every step ------------------------------------------------------------------------------

local function key_of(labels, ...)
  local parts = {}
  for i, name in ipairs { ... } do parts[i] = labels["dockrun." .. name] end
  return table.concat(parts, " ")
end

-- How many allocations of one place may run a container of this task at once: two during a replacement. A poststop task of
-- an ended allocation is not awaited, so several of them may run at once.
local function most_at_once(world, labels)
  local job = world.jobs[labels["dockrun.job"]]
  if job.last[key_of(labels, "group", "task")] then return math.huge end
  return job.rolls and 2 or 1
end

local function check_containers(self)
  local world, tasks, places, ports = self.world, {}, {}, {}
  for _, container in ipairs(world.engine.order) do
    local labels = container.Config.Labels
    if not world.before.containers[container.Id] then
      local task = key_of(labels, "alloc", "task")
      if tasks[task] then world:violate("two containers for one task of an allocation: %s", task) end
      tasks[task] = true
      if container.State.Running then
        local place = key_of(labels, "job", "group", "index", "task")
        places[place] = (places[place] or 0) + 1
        if places[place] > most_at_once(world, labels) then world:violate("%d containers run at once for %s", places[place], place) end
      end
    end
    for _, bound in ipairs(container.State.Running and engines.ports_of(container) or {}) do
      if ports[bound.port] and ports[bound.port] ~= container then world:violate("port %d is held twice", bound.port) end
      ports[bound.port] = container
    end
  end
end

function Invariants:after_step()
  if self.world.engine.changes == self.changes then return end
  self.changes = self.world.engine.changes
  check_containers(self)
end

--- A fiber ended by an error.
---@param fiber SimFiber
function Invariants:on_failure(fiber)
  if fiber.bug then self.world:violate("an internal error in %s: %s", fiber.process, fiber.bug) end
  if fiber.process and not fiber.bug then self.unseen = { fiber, tostring(fiber.results[1]), self.unseen } end
end

-- ---- at every transition ------------------------------------------------------------------------

-- Whether the restart policy allows the decision. Its time is between the task's last transition and now: hooks ran before
-- and after it.
local function check_restart(self, task, to)
  local policy, now, count, since = task.restarts.policy, self.world.sched.time, self.seen[task], task.restarts.since
  local came, over = count.came or now, count.since + policy.interval
  if since ~= count.since then
    if since < math.max(came, over) or since > now or count.stopping then
      self.world:violate("%s begins an interval at %.3f s, but the last interval ends at %.3f s", task.name, since, over)
    end
    count.attempts, count.since = 0, since
  elseif came > over and not task.alloc.stopping then
    self.world:violate("%s still counts attempts in an interval that ended at %.3f s", task.name, over)
  end
  count.attempts = count.attempts + 1
  if to ~= "waiting" then return end
  local delay, allowed = task.wake_at - now, false
  if policy.attempts > 0 and count.attempts <= policy.attempts then
    allowed = delay >= policy.delay - 1e-6 and delay <= policy.delay * 1.25 + 1e-6
  elseif policy.attempts > 0 and policy.mode == "delay" then
    local decided = count.since + policy.interval - delay
    allowed = decided > came - 1e-3 and decided < now + 1e-3
  end
  if not allowed then
    self.world:violate("%s is restarted in %.3f s at attempt %d of %d in %g s (delay %g, mode %s)", task.name, delay, count.attempts,
      policy.attempts, policy.interval, policy.delay, policy.mode)
  end
end

-- Whether a failed task has a reason, and a task that ended as done was asked to stop or has finished.
local function check_end(self, task, to)
  if task.error and task.error.kind == "internal" then self.world:violate("%s: %s", task.name, task.error) end
  local policy, result = task.restarts.policy, task.result
  if to == "failed" then
    local spent = policy.attempts == 0 or self.seen[task].attempts > policy.attempts
    local hooks = task.context.spec.hooks.restart or task.context.job.hooks.restart  -- a hook that may veto
    if not task.error and not (result and spent) and not hooks and not task.recovered then
      self.world:violate("%s failed without a reason: %s", task.name, result and result.exit_code or "no result")
    end
  elseif not task.stopping and not (result and result.exit_code == 0) and not task.recovered then
    self.world:violate("%s is dead, not failed, and no one asked it to stop: %s", task.name, result and result.exit_code or "no result")
  end
end

-- The states in which a task has no ports yet, or returns them.
local portless = { received = true, setup = true, cleanup = true }

local function common_port(one, other)
  for _, port in ipairs(one.context.ports) do
    for _, own in ipairs(other.context.ports) do
      if own.host_port == port.host_port then return port.host_port end
    end
  end
end

-- No other task may have the ports of a task that is to have a container; no other process may have its allocation.
local function check_alone(self, process, task)
  for _, other in ipairs(self.world:alive()) do
    for _, one in ipairs(other.agent and other.agent.tasks or {}) do
      if one ~= task and not one:ended() and not one.detached then
        if other ~= process and one.alloc_id == task.alloc_id then
          self.world:violate("%s and %s both have allocation %s", process, other, task.alloc_id)
        end
        local port = not portless[one.state] and common_port(one, task)
        if port then self.world:violate("%s and %s both have port %d", task.name, one.name, port) end
      end
    end
  end
end

---@param process SimProcess
---@param task table
---@param from string
---@param to string
---@param cause string
function Invariants:on_transition(process, task, from, to, cause)
  local now = self.world.sched.time
  local count = self.seen[task]
  if not count then
    count = { attempts = task.restarts.count, since = task.restarts.since }
    self.seen[task] = count
    if to == "waiting" and cause ~= "recovery" then count.attempts = count.attempts - 1 end
  end
  if cause == "policy" and (to == "waiting" or from == "exited") then check_restart(self, task, to) end
  if from == "waiting" and to == "pulling" and count.wake_at then
    local late = now - count.wake_at
    if late < -1e-6 or late > 1 then self.world:violate("%s begins %.3f s after its delay was over", task.name, late) end
  end
  count.wake_at = to == "waiting" and math.max(task.wake_at, now) or nil  -- the delay may be over when another process adopts the task
  count.came, count.stopping = now, task.alloc.stopping
  if to == "creating" then check_alone(self, process, task) end
  if from == "cleanup" then check_end(self, task, to) end
end

-- ---- when a process ends ------------------------------------------------------------------------

-- Whether another process has, or had meanwhile, the job of this process.
local function has_company(world, process)
  if world.keeps_agent then return true end
  for _, other in ipairs(world.processes) do
    if other ~= process and other.job == process.job and not (other.ended_at and other.ended_at < process.began) then return true end
  end
  return false
end

--- A process's main function has returned.
---@param process SimProcess
function Invariants:main_ended(process)
  local world = self.world
  local failure = process.main.state == "failed" and process.main.results[1]
  if failure and not (type(failure) == "table" and failure.kind) then world:violate("%s failed: %s", process, tostring(failure)) end
  local stops = process.command == "stop" and process.code == 0
  local ran = process.command == "run" and not process.args.detach and process.code ~= nil
  if not stops and not ran or has_company(world, process) then return end
  for _, container in ipairs(world.engine.order) do
    local own = not world.before.containers[container.Id]
    if own and container.Config.Labels["dockrun.job"] == process.job and container.State.Running then
      world:violate("%s ended with %d, and %s runs", process, process.code, container.Name)
    end
  end
end

-- Fibers that failed and whose error no fiber has read: `dockrun: a fiber failed` on stderr.
local function check_unseen(self)
  local one = self.unseen
  while one do
    local fiber, text = one[1], one[2]
    if not fiber.observed and not fiber.process.killed then self.world:violate("a fiber of %s failed unseen: %s", fiber.process, text) end
    one = one[3]
  end
  self.unseen = nil
end

-- ---- at rest, and at the end --------------------------------------------------------------------

--- Why the world is not at rest.
---@return string? why
function Invariants:unrest() return final.unrest(self.world) end

--- Once every job was stopped and every process has ended.
---@param before table  the engine's own at the beginning: { containers = …, images = … }
function Invariants:finish(before)
  check_unseen(self)
  final.check(self.world, before)
end

return M
