-- What must hold in a simulated world: at every step, when a process ends, when all has come to rest, and at the end.
local engines = require "spec.sim.engine"

local M = {}

---@class Invariants
---@field world World
local Invariants = {}
Invariants.__index = Invariants

---@param world World
---@return Invariants
function M.new(world)
  local self = setmetatable({ world = world, changes = -1, seen = setmetatable({}, { __mode = "k" }), foreign = {} }, Invariants)
  return self
end

-- ---- at every step ------------------------------------------------------------------------------

local function key_of(labels, ...)
  local parts = {}
  for i, name in ipairs { ... } do parts[i] = labels["dockrun." .. name] end
  return table.concat(parts, " ")
end

-- Whether a second allocation may run at a place: while one gives way to the other.
local function may_overlap(world, labels)
  local job = world.jobs[labels["dockrun.job"]]
  return job and job.rolls
end

local function check_containers(self)
  local world, tasks, places, ports = self.world, {}, {}, {}
  for _, container in ipairs(world.engine.order) do
    local labels = container.Config.Labels
    if labels["dockrun.task"] then
      local task = key_of(labels, "alloc", "task")
      if tasks[task] then world:violate("two containers for one task of an allocation: %s", task) end
      tasks[task] = true
      if container.State.Running then
        local place = key_of(labels, "job", "group", "index", "task")
        local most = may_overlap(world, labels) and 2 or 1
        places[place] = (places[place] or 0) + 1
        if places[place] > most then world:violate("%d containers run at once for %s", places[place], place) end
      end
    end
    if container.State.Running then
      local own = {}
      for _, bound in ipairs(engines.ports_of(container)) do
        if ports[bound.port] and ports[bound.port] ~= container then world:violate("port %d is held twice", bound.port) end
        own[bound.port] = container
      end
      for port in pairs(own) do ports[port] = container end
    end
  end
end

function Invariants:after_step()
  if self.world.engine.changes == self.changes then return end
  self.changes = self.world.engine.changes
  check_containers(self)
end

--- A task of the runtime ended by an error.
---@param task SimTask
function Invariants:on_failure(task)
  local text = tostring(task.results[1])
  if task.bug then self.world:violate("an internal error in %s: %s", task.process, task.bug) end
  if task.process and not task.bug then self.unseen = { task, text, self.unseen } end
end

-- ---- at every transition ------------------------------------------------------------------------

-- Whether the restart policy allows what was decided: counted here anew, in each process from what it found.
local function check_restart(self, task, to)
  local policy, now, count = task.restarts.policy, self.world.sched.time, self.seen[task]
  if now > count.since + policy.interval then count.attempts, count.since = 0, now end
  count.attempts = count.attempts + 1
  if to ~= "waiting" then return end
  local delay = task.wake_at - now
  local within = policy.attempts > 0 and count.attempts <= policy.attempts
  local ok
  if within then
    ok = delay >= policy.delay - 1e-6 and delay <= policy.delay * 1.25 + 1e-6
  else
    ok = policy.attempts > 0 and policy.mode == "delay" and math.abs(delay - (count.since + policy.interval - now)) < 1e-3
  end
  if not ok then
    self.world:violate("%s is restarted in %.3f s at attempt %d of %d in %g s (delay %g, mode %s)", task.name, delay, count.attempts,
      policy.attempts, policy.interval, policy.delay, policy.mode)
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
    count = { attempts = task.restarts.count, since = task.restarts.since, process = process }
    self.seen[task] = count
    if to == "waiting" and cause ~= "recovery" then count.attempts = count.attempts - 1 end
  end
  if cause == "policy" and (to == "waiting" or from == "exited") then check_restart(self, task, to) end
  if from == "waiting" and to == "pulling" and count.wake_at then
    local late = now - count.wake_at
    if late < -1e-6 or late > 1 then self.world:violate("%s begins %.3f s after its delay was over", task.name, late) end
  end
  count.wake_at = to == "waiting" and math.max(task.wake_at, now) or nil  -- it may be over when another takes it up
end

-- ---- when a process ends ------------------------------------------------------------------------

---@param process SimProcess
function Invariants:main_ended(process)
  local world = self.world
  local failure = process.main.state == "failed" and process.main.results[1]
  if failure and not (type(failure) == "table" and failure.kind) then world:violate("%s failed: %s", process, tostring(failure)) end
end

-- Tasks of the runtime that failed and that nobody has asked: `dockrun: a task failed` on stderr.
local function check_unseen(self)
  local one = self.unseen
  while one do
    local task, text = one[1], one[2]
    if not task.observed and not task.process.dead then self.world:violate("a task of %s failed unseen: %s", task.process, text) end
    one = one[3]
  end
  self.unseen = nil
end

-- ---- at rest ------------------------------------------------------------------------------------

local resting = { running = true, healthy = true, unhealthy = true, dead = true, failed = true, waiting = true, received = true }
local lives = { running = true, healthy = true, unhealthy = true }

-- What keeps a task from being at rest; nil where it is.
local function unrest(world, task)
  if not resting[task.state] then return "is " .. task.state end
  if lives[task.state] then
    local container = task.container_id and world.engine.containers[task.container_id]
    if not container then return "runs without a container" end
    if not container.State.Running then return "runs, and its container does not" end
  elseif task.state == "waiting" and task.wake_at and task.wake_at < world.sched.time - 0.5 then
    return "waits for longer than its delay"
  elseif task.state == "received" then
    for _, other in ipairs(task.alloc.tasks) do
      if other ~= task and not other:ended() then return nil end
    end
    return "waits for a turn that nobody gives"
  end
end

--- What keeps the world from being at rest.
---@return string? why
function Invariants:unrest()
  for _, process in ipairs(self.world:alive()) do
    if process.main:ended() then return ("%s does not end"):format(process) end
    if process.agent and process.detaching then return ("%s does not let go"):format(process) end
    for _, task in ipairs(process.agent and process.agent.tasks or {}) do
      local why = not task.detached and unrest(self.world, task)
      if why then return ("%s: %s.%s[%d].%s %s"):format(process, task.job, task.group, task.context.alloc.index, task.name, why) end
    end
  end
end

-- ---- at the end ---------------------------------------------------------------------------------

local function check_state(world)
  local store = require "dockrun.store"
  local state <close> = assert(store.open(world.options.state_dir))
  local tables = { "leases", "intents", "jobs", "allocs", "tasks" }
  if world.options["docker.cleanup.image"] ~= false then tables[#tables + 1] = "images" end
  for _, what in ipairs(tables) do
    local rows = assert(state[what](state))
    for _, row in ipairs(rows) do
      world:violate("%s are left in the state: %s", what, require("dockrun.core.json").encode(row))
    end
  end
end

local function check_directories(world)
  for _, id in ipairs(require("dockrun.driver.dirs").list(world.options.state_dir)) do
    world:violate("the directory of allocation %s is left", id)
  end
end

--- Once every job was stopped and every process has ended.
---@param before table  what the engine had in the beginning: { containers = …, images = … }
function Invariants:finish(before)
  local world = self.world
  check_unseen(self)
  for _, container in ipairs(world.engine.order) do
    if not before.containers[container.Id] then world:violate("container %s is left, %s", container.Name, container.State.Status) end
  end
  for id, name in pairs(before.containers) do
    if not world.engine.containers[id] then world:violate("container %s, which is not ours, is gone", name) end
  end
  for ref in pairs(world.engine.images) do
    if not before.images[ref] and world.options["docker.cleanup.image"] ~= false then world:violate("image %s is left", ref) end
  end
  for ref in pairs(before.images) do
    if not world.engine.images[ref] then world:violate("image %s, which was there before, is gone", ref) end
  end
  for port in pairs(world.port_claims) do world:violate("port %d is left claimed", port) end
  check_state(world)
  check_directories(world)
end

return M
