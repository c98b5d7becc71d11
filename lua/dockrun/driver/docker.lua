--- The calls that a container's life consists of: create, start, update its limits, wait for its end, remove. Each is safe
--- if the engine's answer is lost. What a container is made of: container_config.lua. When these calls are made: task/.
local labels = require "dockrun.driver.labels"
local limits = require "dockrun.driver.limits"
local network = require "dockrun.driver.network"
local retry = require "dockrun.driver.retry"
local runtime = require "dockrun.core.runtime"

local M = {}

--- Removes a container with its anonymous volumes, whatever its state, and waits until it is gone, even if another process
--- removes it. An engine that ends meanwhile may leave a removal half done; then it is asked again.
---@param engine table
---@param id string
---@param once? boolean  without a retry
---@return true? ok  also if there is no such container
---@return table? err
function M.remove(engine, id, once)
  local function call() return engine:container_remove(id, { force = true, v = true }) end
  local function is_transient(err) return not once and (retry.is_transient(err) or err.status == 409) end
  local ok, err = retry.call(call, is_transient)
  if ok or err.status == 404 or once and err.status == 409 then return true end
  return nil, err
end

--- The image that a container was made of, and the signal that it was made with.
---@param found table  Engine API, ContainerInspect
---@return { id: string, reference: { full: string }, pulled: boolean } image
---@return string? stop_signal
function M.made_of(found)
  return { id = found.Image, reference = { full = found.Config.Image }, pulled = false }, found.Config.StopSignal
end

--- The id of a container if the creation that the state recorded as this intent has made it.
---@param found table   Engine API, ContainerInspect
---@param intent? string
---@return string? id
function M.intended_id(found, intent)
  return intent ~= nil and (found.Config.Labels or {})[labels.key.intent] == intent and found.Id or nil
end

-- There is a container of this name already. It is removed if the same intent made it; any other stays.
local function purge(engine, name, intent)
  local found, err = retry.call(function() return engine:container_inspect(name) end)
  if not found then return err.status == 404, err end
  local leftover = M.intended_id(found, intent)
  if leftover then return M.remove(engine, leftover) end
  return nil, runtime.error("taken", ("the name '%s' belongs to container %s, which this state did not record; rename or remove it"):format(
    name, found.Id:sub(1, 12)))
end

--- The parts of a request that the engine did not carry out, in its own words; nil if it did all.
---@param answer { Warnings?: string[] }
---@return string?
function M.limitations(answer)
  local list = type(answer.Warnings) == "table" and answer.Warnings or {}
  return #list > 0 and table.concat(list, "; ") or nil
end

--- Creates a container. A leftover of the same name and the same intent is removed first.
---@param engine table
---@param name string
---@param body table  of container_config.body
---@param attempts? integer  how often a leftover is removed (config.container_exists_attempts); 5 if left out
---@return string? id
---@return table? err
---@return string? warnings  see M.limitations
function M.create(engine, name, body, attempts)
  network.add_mac_address(engine, body)
  local created, err
  for attempt = 1, 1 + (attempts or 5) do
    created, err = retry.call(function() return engine:container_create { name = name, body = body } end, retry.is_unanswered)
    if created then return created.Id, nil, M.limitations(created) end
    if err.status ~= 409 or attempt > (attempts or 5) then return nil, err end
    local ok, why = purge(engine, name, (body.Labels or {})[labels.key.intent])
    if not ok then return nil, why end
    runtime.sleep(0.05 * 2 ^ attempt)
  end
  return nil, err
end

--- Starts a container, once: if the engine does not answer, the container is inspected, and not started again if it has run.
---@param engine table
---@param id string
---@return true? ok
---@return table? err
function M.start(engine, id)
  return retry.call(function()
    local ok, err = engine:container_start(id)
    if not retry.is_unanswered(err) then return ok, err end
    local found, unknown = retry.call(function() return engine:container_inspect(id) end)
    if not found then return nil, unknown end
    if found.State.Status ~= "created" then return true end
    return nil, err
  end, retry.is_unanswered)
end

-- No container has this name.
local NO_CONTAINER = "dockrun-asks-for-update"

--- Whether an engine changes limits of a container that runs. Podman (4.3) has no such call: the 404 is then its router's,
--- not one about a missing container.
---@param engine table
---@return boolean
function M.can_update(engine)
  local _, err = engine:container_update(NO_CONTAINER)
  return not (err and err.status == 404 and err.kind == "protocol")
end

--- Gives a running container the limits of a task.
---@param engine table
---@param id string
---@param task table  normalised
---@return true? ok
---@return table? err  the engine's, with what was tried; the container may have some of the limits then
---@return string? warnings  see M.limitations
function M.update(engine, id, task)
  local body, err = limits.update_body(task)
  if not body then return nil, err end
  local answer
  answer, err = engine:container_update(id, { body = body })
  if answer then return true, nil, M.limitations(answer) end
  return nil, runtime.error("engine", ("cannot change the limits of task '%s' (%d MB, %d MHz): %s"):format(
    task.name, task.resources.memory, task.resources.cpu, err), { status = err.status })
end

---@class TaskResult
---@field exit_code? integer
---@field signal? integer   the signal that ended it, if the exit code says so (128 + n)
---@field oom boolean
---@field error? string

--- How a container ended, from its inspected state.
---@param state table  Engine API, ContainerState
---@return TaskResult
function M.result(state)
  local code = state.ExitCode
  return {
    exit_code = code,
    signal = code and code > 128 and code < 128 + 65 and code - 128 or nil,
    oom = state.OOMKilled or false,
    error = state.Error ~= "" and state.Error or nil,
  }
end

-- The result of a container that was removed, from its last event.
local function vanished(died)
  local code = died and math.tointeger(tonumber(died.attributes.exitCode))
  local result = M.result { ExitCode = code }
  result.error = "the container was removed from outside of dockrun"
  return result
end

-- States in which a container does not run and has not ended either. Podman's `stopping` lasts as long as the grace period.
local before_the_end = { created = true, configured = true, initialized = true, stopping = true }

--- Whether a container has run and has ended.
---@param found table  Engine API, ContainerInspect
---@return boolean
function M.has_ended(found)
  local state = found.State
  return not (state.Running or state.Restarting or before_the_end[state.Status])
end

-- For an image without a check: Docker, and Podman.
local no_check = { none = true, [""] = true }

--- The result of the image's own health check.
---@param engine table
---@param id string
---@return "starting"|"healthy"|"unhealthy"|nil  nil: the image has no check, or the engine does not answer
function M.health(engine, id)
  local found = engine:container_inspect(id)
  local health = found and found.State.Health
  local status = health and health.Status or ""
  return not no_check[status] and status or nil
end

-- Events after which a container may have ended. `remove` is Podman's `destroy`.
local ends = { die = true, destroy = true, remove = true, resync = true }

-- Seconds between two inspections if one fails.
local SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 5

--- Waits until a container has ended.
---@param engine table
---@param id string
---@param queue table   from Watch:add
---@param seen? fun(event: table)  called with every event until then
---@return TaskResult
function M.wait(engine, id, queue, seen)
  local died, pause
  while true do
    local event = queue:pop(pause)
    if event and seen then seen(event) end
    event = event or { action = "resync" }
    if event.action == "die" then died = event end
    if ends[event.action] then
      local found, err = engine:container_inspect(id)
      if found and M.has_ended(found) then return M.result(found.State) end
      if not found and err.status == 404 then return vanished(died) end
      -- Not every engine sends an event for the end of a container that is stopping.
      pause = (not found or found.State.Status == "stopping") and math.min((pause or SHORTEST_PAUSE / 2) * 2, LONGEST_PAUSE) or nil
    end
  end
end

return M
