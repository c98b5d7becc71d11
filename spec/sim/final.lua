-- The checks of a simulated world at rest, and after everything in it was stopped.
local allocdir = require "dockrun.driver.allocdir"
local json = require "dockrun.core.json"
local store = require "dockrun.store"

local M = {}

-- ---- at rest ------------------------------------------------------------------------------------

local resting = { running = true, healthy = true, unhealthy = true, dead = true, failed = true, waiting = true, received = true }
local lives = { running = true, healthy = true, unhealthy = true }

-- Why a task is not at rest; nil if it is.
local function of_task(world, task)
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
    return "waits for dependencies that will never be ready"
  end
end

local function of_process(world, process)
  if process.main:ended() then return ("%s does not end"):format(process) end
  for _, task in ipairs(process.agent and process.agent.tasks or {}) do
    local why = not task.detached and of_task(world, task)
    if why then return ("%s: %s.%s[%d].%s %s"):format(process, task.job, task.group, task.context.alloc.index, task.name, why) end
  end
end

local function open(world) return assert(store.open(world.options.state_dir, { readonly = true })) end

-- Whether a live process has tasks of a job.
local function is_watched(world, job)
  for _, process in ipairs(world:alive()) do
    for _, task in ipairs(process.agent and process.agent.tasks or {}) do
      if task.job == job then return true end
    end
  end
  return false
end

-- If there is an agent, a process watches every job that should run.
local function of_jobs(world)
  if not world.keeps_agent then return end
  local state <close> = open(world)
  for _, job in ipairs(assert(state:jobs())) do
    if job.status == "running" and not is_watched(world, job.name) then return ("no process watches %s"):format(job.name) end
  end
end

-- Whether the state agrees with the containers that run and are watched.
local function of_state(world)
  local state <close> = open(world)
  local rows, leased = {}, {}
  for _, row in ipairs(assert(state:tasks())) do rows[row.container_id or ""] = row end
  for _, lease in ipairs(assert(state:leases())) do leased[lease.port] = lease.alloc .. " " .. lease.task end
  for _, container in ipairs(world.engine.order) do
    local labels = container.Config.Labels
    if not world.before.containers[container.Id] and container.State.Running and is_watched(world, labels["dockrun.job"]) then
      local row = rows[container.Id]
      if not row then return ("%s runs, and the state knows nothing of it"):format(container.Name) end
      if not lives[row.state] then return ("%s runs, and the state says that it is %s"):format(container.Name, row.state) end
      for _, port in ipairs(json.decode(labels["dockrun.ports"])) do
        if leased[port.host_port] ~= labels["dockrun.alloc"] .. " " .. labels["dockrun.task"] then
          return ("%s has port %d, and %s the lease"):format(container.Name, port.host_port, leased[port.host_port] or "no task")
        end
      end
    end
  end
end

--- Why a world is not at rest; nil if it is.
---@param world World
---@return string? why
function M.unrest(world)
  for _, process in ipairs(world:alive()) do
    local why = of_process(world, process)
    if why then return why end
  end
  return of_jobs(world) or of_state(world)
end

-- ---- at the end ---------------------------------------------------------------------------------

local function check_state(world)
  local state <close> = open(world)
  local tables = { "leases", "intents", "jobs", "allocs", "tasks" }
  if world.options["docker.cleanup.image"] ~= false then tables[#tables + 1] = "images" end
  for _, what in ipairs(tables) do
    for _, row in ipairs(assert(state[what](state))) do world:violate("%s are left in the state: %s", what, json.encode(row)) end
  end
end

local function check_engine(world, before)
  local engine = world.engine
  for _, container in ipairs(engine.order) do
    if not before.containers[container.Id] then world:violate("container %s is left, %s", container.Name, container.State.Status) end
  end
  for id, name in pairs(before.containers) do
    if not engine.containers[id] then world:violate("container %s, which is not ours, is gone", name) end
  end
  for ref in pairs(engine.images) do
    if not before.images[ref] and world.options["docker.cleanup.image"] ~= false then world:violate("image %s is left", ref) end
  end
  for ref in pairs(before.images) do
    if not engine.images[ref] then world:violate("image %s, which was there before, is gone", ref) end
  end
  if #engine.connections > 0 then world:violate("%d connections are left", #engine.connections) end
end

--- Checks that nothing is left.
---@param world World
---@param before table  the engine's own at the beginning: { containers = …, images = … }
function M.check(world, before)
  check_engine(world, before)
  for port in pairs(world.port_claims) do world:violate("port %d is left held", port) end
  for path in pairs(world.sockets) do world:violate("a process still listens on %s", path) end
  check_state(world)
  for _, id in ipairs(allocdir.list(world.options.state_dir)) do world:violate("the directory of allocation %s is left", id) end
end

return M
