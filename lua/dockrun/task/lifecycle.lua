-- The life of one task:
--
--   received -> setup -> pull -> create -> start -> running -> exited -> cleanup -> dead | failed
--
-- A stop may come at any point. Before `running` it takes the task off its way (a cancel); from then on it stops the
-- container, and the end is seen like any other. Whatever happened, `cleanup` leaves nothing behind.
local dirs = require "dockrun.driver.dirs"
local driver = require "dockrun.driver.docker"
local env = require "dockrun.task.env"
local hooks = require "dockrun.hooks"
local interpolate = require "dockrun.job.interpolate"
local ports = require "dockrun.task.ports"
local runtime = require "dockrun.core.runtime"

local M = {}

-- A port can be lost between our probe and the engine's bind this often before the task fails.
local START_ATTEMPTS = 5

---@class Task
---@field agent table        engine, options, hooks, emitter, watch, images, ports: what the tasks of an agent share
---@field context TaskContext
---@field job string         names, for events
---@field group string
---@field name string
---@field alloc_id string
---@field state "pending"|"running"|"dead"|"failed"
---@field result? TaskResult
---@field error? table       why it failed before it ran
---@field container_id? string
---@field stopping boolean
---@field detached boolean   leave the container alone from now on
local Task = {}
Task.__index = Task

---@param agent table
---@param context TaskContext
---@return Task
function M.new(agent, context)
  return setmetatable({
    agent = agent, context = context, state = "pending", stopping = false, detached = false,
    job = context.job.name, group = context.group.name, name = context.task.name, alloc_id = context.alloc.id,
  }, Task)
end

function Task:emit(name, fields) return self.agent.emitter:emit(self, name, fields) end

--- What hooks see of the task.
function Task:view()
  local context = self.context
  return hooks.read_only {
    job = self.job, group = self.group, name = self.name, alloc = context.alloc, config = context.task.config,
    resources = context.task.resources, meta = context.meta, env = context.env, ports = context.ports, ip = context.ip,
    state = self.state, container_id = self.container_id, image = context.image and context.image.reference.full,
    result = self.result, endpoint = self.agent.engine:endpoint(),
  }
end

-- Runs a transition's hooks; raises where one fails or says no, which takes the task off its way.
function Task:hook(name, thing)
  local context = self.context
  local own = {
    { "job", context.job.hooks or {} }, { "group", context.group.hooks or {} }, { "task", context.task.hooks or {} },
  }
  local function report(err) self:emit("hook_failed", { message = tostring(err) }) end
  local ok, err = self.agent.hooks:run(name, own, self:view(), thing, report)
  if ok then return end
  self:emit("hook_failed", { message = tostring(err) })
  error(err, 0)
end

-- A hook after which nothing can be refused any more: its failure is told and changes nothing.
function Task:late_hook(name, thing)
  local ok, err = pcall(self.hook, self, name, thing)
  if not ok and type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
end

-- Raises err unless the call gave a value.
local function must(value, err)
  if not value then error(err, 0) end
  return value
end

-- ---- on the way to running --------------------------------------------------------------------

-- Whose container has a port that we wanted: a better name than the proxy process that holds it.
local function name_holder(engine, err)
  for _, container in ipairs(engine:container_list() or {}) do
    for _, port in ipairs(container.Ports or {}) do
      if port.PublicPort == err.port then
        err.holder = "container " .. (container.Names[1] or container.Id):gsub("^/", "")
        err.message = ("port %d is taken: %s has it"):format(err.port, err.holder)
        return
      end
    end
  end
end

function Task:take_ports()
  local agent, context = self.agent, self.context
  local owner = ("%s.%s[%d].%s"):format(self.job, self.group, context.alloc.index, self.name)
  local asked = context.spec.resources.network.ports
  local mappings, err = ports.allocate(agent.ports, agent.bind_ip, context.ip, asked, owner)
  if not mappings then
    if err.kind == "taken" and err.port then name_holder(agent.engine, err) end
    error(err, 0)
  end
  context.ports = mappings
end

function Task:release_ports()
  ports.release(self.agent.ports, self.agent.bind_ip, self.context.ports)
  self.context.ports = {}
end

-- On another host's engine there is nothing to make here.
function Task:make_dirs()
  local context = self.context
  if not self.agent.engine:endpoint():find "^unix:" then return end
  context.dirs = dirs.of(self.agent.options.state_dir, context.alloc.id, self.name)
  context.alloc.users = (context.alloc.users or 0) + 1
  must(dirs.make(context.dirs))
end

-- The allocation's directories go with the last of its tasks.
function Task:remove_dirs()
  local context = self.context
  if not context.dirs then return end
  context.alloc.users = context.alloc.users - 1
  local root = context.dirs.root
  context.dirs = nil
  if context.alloc.users > 0 then return end
  local ok, err = dirs.remove(root)
  if not ok then self:emit("failed", { message = "clean-up: " .. tostring(err) }) end
end

-- The environment, and the task's strings with everything filled in.
function Task:fill_in()
  local context = self.context
  context.task = context.spec
  context.env = env.build(context)
  context.task = must(interpolate.task(context.spec, {
    env = context.env, attr = self.agent.attributes, node = self.agent.node, meta = context.meta,
  }))
  context.env = env.build(context)
end

function Task:pull()
  local context = self.context
  self:hook("pull", { image = context.task.config.image })
  context.image = must(self.agent.images:ensure(context.task.config.image, {
    pulling = function() self:emit("pulling", { message = context.task.config.image }) end,
    progress = self.agent.on_progress and function(...) self.agent.on_progress(self, ...) end,
    warn = function(message) self:emit("pulling", { message = message }) end,
  }))
  self:emit("pulled", { image_id = context.image.id, message = context.image.reference.full })
  self:hook("pulled", context.image)
end

function Task:create()
  local body = driver.body(self.context)
  self:hook("create", body)
  self:hook("prestart", body)
  self.container_id = must(driver.create(self.agent.engine, driver.container_name(self.context), body))
  self:emit("created", { container_id = self.container_id, image_id = self.context.image.id })
  self:hook("created", { id = self.container_id })
end

function Task:remove_container()
  local id = self.container_id
  if not id then return end
  self.agent.watch:remove(id)
  local ok, err = self.agent.engine:container_remove(id, { force = true, v = true })
  self.container_id = nil
  -- 404: it is gone already. 409: somebody else is removing it just now.
  if not ok and err.status ~= 404 and err.status ~= 409 then error(err, 0) end
  self:emit("removed", { container_id = id })
end

-- Creates and starts. Where a port was lost to somebody else meanwhile, takes another one and begins anew.
function Task:launch()
  local engine = self.agent.engine
  for attempt = 1, START_ATTEMPTS do
    self:create()
    self.events = self.agent.watch:add(self.container_id)
    local ok, err = engine:container_start(self.container_id)
    if ok then return end
    local lost, port = driver.lost_port(err)
    self:remove_container()
    self:release_ports()
    if not lost or attempt == START_ATTEMPTS then error(err, 0) end
    runtime.sleep(0.05)
    self:take_ports()  -- says so where the port was a reserved one
    self:fill_in()
    self:emit("setup", { message = ("port %s was taken by somebody else meanwhile; starting again"):format(port or "?") })
  end
end

function Task:prepare()
  self:emit "received"
  self:hook("received", self.context.spec)
  self:hook("setup", self.context.spec)
  self:make_dirs()
  self:take_ports()
  self:hook("ports", self.context.ports)
  self:fill_in()
  self:emit("setup", { ports = self.context.ports })
  self:pull()
  self:launch()
  self.state = "running"
  local handle = driver.handle(self.context.image.id, self.container_id)
  self:emit("started", {
    container_id = self.container_id, image_id = self.context.image.id, ports = self.context.ports, message = handle,
  })
  if self.agent.on_log then self.logs = runtime.spawn(self.agent.on_log, self) end
  self:late_hook("started", { id = self.container_id, handle = handle })
end

-- ---- the end ----------------------------------------------------------------------------------

local function describe(result)
  if result.error then return result.error end
  if result.oom then return "killed by the kernel: out of memory" end
  if result.signal then return ("ended by signal %d"):format(result.signal) end
  return ("exit code %d"):format(result.exit_code or -1)
end

function Task:watch_end()
  self.result = driver.wait(self.agent.engine, self.container_id, self.events, function(event)
    if event.action == "oom" then self:emit("oom", { container_id = self.container_id, oom = true }) end
  end)
  local result = self.result
  self:emit("exited", {
    container_id = self.container_id, exit_code = result.exit_code, signal = result.signal, oom = result.oom,
    message = describe(result),
  })
  self:late_hook("exited", result)
end

function Task:cleanup()
  if self.logs then pcall(self.logs.await, self.logs, 5) end  -- the last lines, before the container goes
  self:late_hook("cleanup", { container_id = self.container_id })
  if self.agent.options["docker.cleanup.container"] or not self.result then
    local ok, err = pcall(self.remove_container, self)
    if not ok then self:emit("failed", { message = "clean-up: " .. tostring(err), container_id = self.container_id }) end
  end
  self.agent.watch:remove(self.container_id or "")
  self:release_ports()
  if not self.container_id then self:remove_dirs() end
end

-- Stops the container of a task that was cancelled while it ran.
function Task:halt()
  self.agent.engine:container_stop(self.container_id, { t = math.ceil(self.context.task.kill_timeout) })
end

--- The whole life. Returns when nothing of the task is left (or it was detached).
function Task:run()
  local ok, err = pcall(self.prepare, self)
  if ok then ok, err = pcall(self.watch_end, self) end
  if self.detached then return end
  if not ok and self.container_id and self.state == "running" then self:halt() end
  local stopped = self.stopping or (not ok and type(err) == "table" and err.kind == "cancelled")
  if not ok and not stopped then
    self.error = err
    self:emit("failed", { message = tostring(err), container_id = self.container_id })
    self:late_hook("failed", err)
  end
  local good = ok and self.result.exit_code == 0 and not self.result.error
  self:cleanup()
  self.state = (good or stopped) and "dead" or "failed"
  if stopped then self:late_hook("stopped", self.result) end
end

--- Asks the task to end: its container is stopped as the job wants, or, before there is one, it goes no further.
---@param reason? string
function Task:stop(reason)
  if self.stopping or self.state == "dead" or self.state == "failed" then return end
  self.stopping = true
  if self.state ~= "running" then
    if self.coroutine then self.coroutine:cancel(reason or "stopped") end
    return
  end
  self:emit("killing", { container_id = self.container_id, message = reason })
  self:late_hook("kill", { signal = self.context.task.kill_signal, timeout = self.context.task.kill_timeout })
  local ok, err = self.agent.engine:container_stop(self.container_id, { t = math.ceil(self.context.task.kill_timeout) })
  if ok or err.status == 404 then
    self:emit("killed", { container_id = self.container_id })
    self:late_hook("killed", { id = self.container_id })
  else
    self:emit("failed", { message = "cannot stop it: " .. tostring(err), container_id = self.container_id })
  end
end

--- Ends it at once.
function Task:kill()
  self.stopping = true
  if self.container_id then
    self.agent.engine:container_kill(self.container_id)
  elseif self.coroutine then
    self.coroutine:cancel "killed"
  end
end

return M
