--- The container of a task: pulls the image, creates, starts, stops and removes. lifecycle.lua calls it. A function raises its
--- error, and leaves what it created where `discard` and `cleanup` find it. Teardown by another process is driver/teardown.lua.
local container_config = require "dockrun.driver.container_config"
local driver = require "dockrun.driver.docker"
local labels = require "dockrun.driver.labels"
local network = require "dockrun.driver.network"
local retry = require "dockrun.driver.retry"
local runtime = require "dockrun.core.runtime"
local setup = require "dockrun.task.setup"
local uv = require "luv"

local M = {}

-- Raises err unless the call gave a value.
local function must(value, err)
  if not value then error(err, 0) end
  return value
end

-- ---- pulling ----------------------------------------------------------------------------------

local function obtain_image(task)
  local context, services = task.context, task.services
  return services.images:obtain(context, {
    owner = { alloc = task.alloc_id, task = task.name },
    pulling = function() task:emit("pulling", { message = context.resolved.config.image }) end,
    progress = services.on_progress and function(...) services.on_progress(task, ...) end,
    warn = function(message) task:emit("pulling", { message = message }) end,
  })
end

--- Makes sure that the engine has the image.
---@param task Task
function M.pull(task)
  local context = task.context
  local subject = { image = context.image_asked }  -- not the result of the hook at the previous attempt
  task:hook("pull", subject)
  context.resolved.config.image = subject.image
  context.image = must(obtain_image(task))
  task:save()  -- from here on no other image counts as in use by it
  task:emit("pulled", { image_id = context.image.id, message = context.image.reference.full })
  task:hook("pulled", context.image)
end

-- ---- creating, starting -----------------------------------------------------------------------

-- Puts what failed before the engine's own words.
local function explain(err, what)
  if err and err.kind == "engine" then err.message = ("cannot %s the container: %s"):format(what, err.message) end
  return err
end

--- Makes an intent: the random name of one creation. No other creation and no copy of a container has it.
---@return string
function M.new_intent() return ("%02x"):rep(16):format(uv.random(16):byte(1, 16)) end

-- Warns of paths that existing containers cannot share with this one until they are created again. That happens if a hook or a
-- variable names the path, or if an older dockrun made the other container.
local function warn_of_moved(task)
  for _, path in ipairs(task.context.moved or {}) do
    for _, other in ipairs(task.alloc.tasks) do
      if other ~= task and other:is_live() then
        task.services.warn(("task '%s.%s': /%s will be shared with task '%s' when that task starts again")
          :format(task.group, task.name, path, other.name))
      end
    end
  end
end

--- Creates the container. A stop can cancel only its hooks: whether the engine created the container must be known.
---@param task Task
function M.create(task)
  local context = task.context
  context.intent = task.intent
  local body = must(container_config.body(context, task.services.options))
  warn_of_moved(task)
  local keep_labels = labels.keeper(body)
  task:hook("create", body)
  task:hook("prestart", body)
  keep_labels()
  context.stop_signal = nil
  context.stop_signal = container_config.stop_signal(context, body)
  task.answered = false
  local function create()
    local name = labels.container_name(task.name, task.alloc_id)
    return driver.create(task.services.engine, name, body, context.resolved.config.container_exists_attempts)
  end
  local id, err, warnings = create()
  local gone = err and err.status == 404 and err.message:lower():find("no such image", 1, true)
  if gone and task:cancellable(obtain_image, task) then id, err, warnings = create() end
  task.answered = not retry.is_unanswered(err)
  if err and not retry.is_transient(err) then task.intent = nil end  -- the engine refused
  explain(err, "create")
  if err and err.status == 404 then err.kind, err.final = "pull", false end  -- the next attempt may find it
  task.container_id = must(id, err)
  task:save()
  if warnings then task.services.limitation(task, warnings) end
  task:emit("created", { container_id = id, image_id = context.image.id, message = warnings })
  task:hook("created", { id = task.container_id })
end

--- Starts it.
---@param task Task
---@return true? ok
---@return integer|false|nil lost  false, or the port (0: unknown) that another process took meanwhile
---@return table? err
function M.start(task)
  task.events = task.services.watch:add(task.container_id)
  local ok, err = driver.start(task.services.engine, task.container_id)
  if ok then return true end
  local lost, port = network.lost_port(err)
  return nil, lost and (port or 0), explain(err, "start")
end

-- ---- the end ----------------------------------------------------------------------------------

-- Retries, except for a task that is being killed.
local function patiently(task, call) return (task.killed and call or retry.call)(call) end

-- Finds the container of a creation whose answer was lost.
local function find_container(task)
  if task.container_id or not task.context.resolved or not task.intent then return task.container_id end
  local name = labels.container_name(task.name, task.alloc_id)
  local found, err = patiently(task, function() return task.services.engine:container_inspect(name) end)
  if not found then return nil, err.status ~= 404 and err or nil end
  return driver.intended_id(found, task.intent)
end

-- Waits until the last lines are read, before the container is removed. Long enough for an engine that restarts.
local function await_logs(task)
  if task.logs then pcall(task.logs.await, task.logs, task.killed and 5 or 60) end
  task.logs = nil
end

--- Removes the container, if there is one: after a failed attempt, or before the next.
---@param task Task
---@return true? ok
---@return table? err
function M.discard(task)
  local id, unknown = find_container(task)
  if unknown then return nil, unknown end
  if not id then
    if task.answered then task.intent = nil end  -- else the engine may still create it
    return true
  end
  await_logs(task)
  task.services.watch:remove(id)
  local ok, err = driver.remove(task.services.engine, id, task.killed)
  if not ok then return nil, err end
  task.container_id, task.intent = nil, nil
  task:emit("removed", { container_id = id })
  return true
end

--- Releases all that the task holds.
---@param task Task
function M.cleanup(task)
  if task.services.options["docker.cleanup.container"] or not task.result then
    local ok, err = M.discard(task)
    if not ok then task:emit("failed", { message = "clean-up: " .. tostring(err), container_id = task.container_id }) end
  else
    await_logs(task)
  end
  task.services.watch:remove(task.container_id or "")
  setup.release_ports(task)
  if task.context.image then task.services.state:touch_image(task.context.image.reference.full) end
end

--- How to stop a container that is killed.
M.at_once = { signal = "SIGKILL", timeout = 0 }

--- Stops a container as its job or a `kill` hook says: a signal, and SIGKILL after the time-out. Retries while the engine
--- cannot be reached.
---@param task Task
---@param how { signal: string, timeout: number }
---@return true? ok  also if the container does not exist any more
---@return table? err
function M.end_container(task, how)
  local engine, id, pause = task.services.engine, task.container_id, 0.2
  while task.state == "stopping" do
    if task.killed then how = M.at_once end
    local grace = math.ceil(how.timeout)
    local ok, err
    if how.signal == container_config.stop_signal(task.context) then  -- the container's own stop signal
      ok, err = engine:container_stop(id, { t = grace, timeout = grace + 60 })
    else
      ok, err = engine:container_kill(id, { signal = how.signal })
      if ok and not task:await_exit(how.timeout) then ok, err = engine:container_kill(id) end
    end
    if ok or err.status == 409 or err.status == 304 then return true end
    if err.status == 404 then  -- of this container, or of another error that an engine reports so?
      local found = engine:container_inspect(id)
      if not (found and not driver.has_ended(found)) then return true end
    elseif err.status and err.status < 500 then
      return nil, err
    end
    runtime.sleep(pause)
    pause = math.min(pause * 2, 5)
  end
  return true
end

return M
