--- What is done in each state of a task: see lifecycle.lua for when. A step raises what went wrong, and leaves what it
--- made where `discard` and `cleanup` find it.
local retry = require "dockrun.driver.retry"
local allocdir = require "dockrun.driver.allocdir"
local driver = require "dockrun.driver.docker"
local labels = require "dockrun.driver.labels"
local network = require "dockrun.driver.network"
local container_config = require "dockrun.driver.container_config"
local env = require "dockrun.task.env"
local interpolate = require "dockrun.job.interpolate"
local leases = require "dockrun.task.leases"
local policy = require "dockrun.driver.policy"
local ports = require "dockrun.task.ports"
local reread = require "dockrun.job.reread"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"
local tables = require "dockrun.util.tables"

local M = {}

-- Raises err unless the call gave a value.
local function must(value, err)
  if not value then error(err, 0) end
  return value
end

-- ---- setup ------------------------------------------------------------------------------------

-- Names the container that publishes the port: a better name than that of the engine's proxy process.
local function name_holder(engine, err)
  local holder = network.holder_of(engine, err.port)
  if not holder then return end
  err.holder = holder
  err.message = ("port %d is in use by %s; stop that, or choose another port"):format(err.port, holder)
end

local function owner_of(task) return ("%s.%s[%d].%s"):format(task.job, task.group, task.context.alloc.index, task.name) end

local function take_ports(task, asked)
  local agent, context = task.agent, task.context
  local mappings, err = ports.allocate(agent.ports, agent.bind_ip, context.ip, asked, owner_of(task), leases.taker(agent, task))
  if not mappings then
    if err.kind == "taken" and err.port and not err.alloc then name_holder(agent.engine, err) end
    error(err, 0)
  end
  context.ports, task.held_ports = mappings, {}
  for i, mapping in ipairs(mappings) do task.held_ports[i] = mapping.host_port end
end

-- Releases what this task holds: not what it only had before, which may be another task's by now.
local function release_ports(task)
  local agent = task.agent
  for _, port in ipairs(task.held_ports) do agent.ports:release(agent.bind_ip, port) end
  task.context.ports, task.held_ports = {}, {}
  local _, err = agent.state:release { alloc = task.alloc_id, task = task.name }
  if err then agent:warn(err) end
end

-- Takes over the ports that another process took for the task. If no container had them meanwhile, another task may have
-- them by now: nil, an error of the kind "taken".
local function keep_ports(task)
  local agent, held = task.agent, {}
  for _, port in ipairs(task.held_ports) do held[port] = true end
  for _, mapping in ipairs(task.context.ports) do
    local port = mapping.host_port
    local ok, err = agent.state:lease { ip = agent.bind_ip, port = port, alloc = task.alloc_id, task = task.name, label = mapping.label }
    if ok and not held[port] then ok, err = agent.ports:adopt(agent.bind_ip, port, owner_of(task)) end
    if not ok then return nil, err end
    if not held[port] then table.insert(task.held_ports, port) end
  end
  return true
end

-- On another host's engine there are none here.
local function name_dirs(task)
  local context = task.context
  if not task.agent.engine:endpoint():find "^unix:" then return end
  context.dirs = allocdir.of(task.agent.options.state_dir, context.alloc.id, task.name)
end

local function make_dirs(task)
  name_dirs(task)
  if task.context.dirs then must(allocdir.make(task.context.dirs)) end
end

--- The environment, and the task's strings with everything filled in.
---@param task Task
function M.fill_in(task)
  local context = task.context
  local wanted = context.wanted or context.spec
  context.task = wanted
  context.env = env.build(context)
  context.task = must(interpolate.task(wanted, {
    env = context.env, attr = task.agent.attributes, node = task.agent.node, meta = env.meta(context.job, context.group, wanted),
  }))
  context.env = env.build(context)
  context.image_asked = context.task.config.image
end

-- Where the container has the host's own network, a port leads nowhere but to itself.
local function asked_ports(context)
  local spec, asked = context.wanted or context.spec, {}
  for i, port in ipairs(spec.resources.network.ports) do
    asked[i] = { label = port.label, static = port.static, to = spec.config.network_mode ~= "host" and port.to or nil }
  end
  return asked
end

-- The container's ports after a hook has changed the host's: one that is to be the same as the host's follows it. On the
-- host's own network every port is.
local function follow(context, mappings)
  local same, before = {}, {}
  for _, port in ipairs(asked_ports(context)) do same[port.label] = port.to == nil end
  for _, mapping in ipairs(context.ports) do before[mapping.label] = mapping.container_port end
  local host = (context.wanted or context.spec).config.network_mode == "host"
  for _, mapping in ipairs(mappings) do
    local untouched = same[mapping.label] and mapping.container_port == before[mapping.label]
    if host or untouched then mapping.container_port = mapping.host_port end
  end
end

-- The ports of a task, as its hooks want them.
local function settle_ports(task)
  local context = task.context
  local wanted = tables.copy(context.ports)
  task:hook("ports", wanted)
  follow(context, wanted)
  local same = #wanted == #context.ports
  for i, mapping in ipairs(wanted) do same = same and mapping.host_port == context.ports[i].host_port end
  if not same then
    local asked = {}
    for i, mapping in ipairs(wanted) do asked[i] = { label = mapping.label, static = mapping.host_port } end
    release_ports(task)
    take_ports(task, asked)
  end
  context.ports = wanted
end

--- Ports, directories, environment: kept for the task's whole life.
---@param task Task
---@param draft? table  its text, for hooks to change
function M.setup(task, draft)
  local context = task.context
  task:hook("setup", draft)
  if draft then
    context.wanted = must(reread.task(draft, context.spec, context.job, context.group))
    task.restarts.policy = context.wanted.restart
  end
  make_dirs(task)
  take_ports(task, asked_ports(context))
  settle_ports(task)
  M.fill_in(task)
  must(policy.check(task.context.task, task.agent.options, { dirs = task.context.dirs }))
  task:emit("setup", { ports = task.context.ports })
end

--- What setup gave to a task that another process left: its ports are its own still, whether or not its container has
--- them just now.
---@param task Task
---@param container? table  Engine API, ContainerInspect; nil where there is none
function M.restore(task, container)
  local agent, context = task.agent, task.context
  if container then name_dirs(task) else make_dirs(task) end
  local kept, err = keep_ports(task)
  local runs = container and not driver.has_ended(container)
  if not kept and err.kind == "taken" and not runs then
    release_ports(task)
  elseif not kept then
    agent:warn(err)
  end
  local without = #context.ports == 0 and #asked_ports(context) > 0
  task.lacks_ports = without or not kept
  if not without then M.fill_in(task) end
  if container then
    context.image, context.stop_signal = driver.made_of(container)
  end
end

-- ---- pulling ----------------------------------------------------------------------------------

local function obtain_image(task)
  local context, agent = task.context, task.agent
  return agent.images:obtain(context, {
    owner = { alloc = task.alloc_id, task = task.name },
    pulling = function() task:emit("pulling", { message = context.task.config.image }) end,
    progress = agent.on_progress and function(...) agent.on_progress(task, ...) end,
    warn = function(message) task:emit("pulling", { message = message }) end,
  })
end

--- The image, on the engine.
---@param task Task
function M.pull(task)
  local context = task.context
  local wanted = { image = context.image_asked }  -- not what the hook made of it at the attempt before
  task:hook("pull", wanted)
  context.task.config.image = wanted.image
  context.image = must(obtain_image(task))
  task:save()  -- from here on no other image counts as in use by it
  task:emit("pulled", { image_id = context.image.id, message = context.image.reference.full })
  task:hook("pulled", context.image)
end

-- ---- creating, starting -----------------------------------------------------------------------

-- The engine's own words, after what it was that it would not do.
local function explain(err, what)
  if err and err.kind == "engine" then err.message = ("cannot %s the container: %s"):format(what, err.message) end
  return err
end

--- The name of a creation that is about to be asked for. No other creation has it, and no copy of a container.
---@return string
function M.new_intent() return ("%02x"):rep(16):format(uv.random(16):byte(1, 16)) end

-- A container that is there already cannot be given what this one shares. That is so if a hook names it or a variable
-- does, or if an older dockrun made the other one.
local function tell_moved(task)
  for _, path in ipairs(task.context.moved or {}) do
    for _, other in ipairs(task.alloc.tasks) do
      if other ~= task and other:is_live() then
        task.agent:warn(("task '%s.%s': /%s is shared with task '%s' once that starts again")
          :format(task.group, task.name, path, other.name))
      end
    end
  end
end

--- The container. Nothing but its hooks can be broken off: whether the engine made it must be known.
---@param task Task
function M.create(task)
  local context = task.context
  context.intent = task.intent
  local body = must(container_config.body(context, task.agent.options))
  tell_moved(task)
  local keep_labels = labels.keeper(body)
  task:hook("create", body)
  task:hook("prestart", body)
  keep_labels()
  context.stop_signal = nil
  context.stop_signal = container_config.stop_signal(context, body)
  task.answered = false
  local function create()
    local name = labels.container_name(task.name, task.alloc_id)
    return driver.create(task.agent.engine, name, body, context.task.config.container_exists_attempts)
  end
  local id, err, warnings = create()
  local gone = err and err.status == 404 and err.message:lower():find("no such image", 1, true)
  if gone and task:breakable(obtain_image, task) then id, err, warnings = create() end
  task.answered = not retry.is_unanswered(err)
  if err and not retry.is_transient(err) then task.intent = nil end  -- the engine refused
  explain(err, "create")
  if err and err.status == 404 then err.kind, err.final = "pull", false end  -- what is missing may be there at the next attempt
  task.container_id = must(id, err)
  task:save()
  if warnings then task.agent:limitation(task, warnings) end
  task:emit("created", { container_id = id, image_id = context.image.id, message = warnings })
  task:hook("created", { id = task.container_id })
end

--- Starts it.
---@param task Task
---@return true? ok
---@return integer|false|nil lost  false, or the port (0: unknown) that went to somebody else meanwhile
---@return table? err
function M.start(task)
  task.events = task.agent.watch:add(task.container_id)
  local ok, err = driver.start(task.agent.engine, task.container_id)
  if ok then return true end
  local lost, port = network.lost_port(err)
  return nil, lost and (port or 0), explain(err, "start")
end

-- Takes ports once more, as the job and the hooks want them. Raises if a fixed one is another's.
local function renew_ports(task)
  release_ports(task)
  take_ports(task, asked_ports(task.context))
  settle_ports(task)
  M.fill_in(task)
end

--- Other ports than those that were lost.
---@param task Task
---@param lost integer
function M.replace_ports(task, lost)
  runtime.sleep(0.05)
  renew_ports(task)
  task:emit("setup", { message = ("port %d was taken by somebody else meanwhile; starting again"):format(lost) })
end

--- Before an attempt: gives a task ports if it could not keep those that another process took for it.
---@param task Task
function M.regain_ports(task)
  if not task.lacks_ports then return end
  local kept, err
  if #task.context.ports > 0 then kept, err = keep_ports(task) end
  if err and err.kind ~= "taken" then error(err, 0) end
  if not kept then
    renew_ports(task)
    task:emit("setup", { ports = task.context.ports, message = "another task has its ports now: took other ports" })
  end
  task.lacks_ports = false
end

-- ---- the end ----------------------------------------------------------------------------------

-- Of a task that is killed, nothing is tried twice.
local function patiently(task, call) return (task.killed and call or retry.call)(call) end

-- What the engine has, although we were cut off before it could say so.
local function find_container(task)
  if task.container_id or not task.context.task or not task.intent then return task.container_id end
  local name = labels.container_name(task.name, task.alloc_id)
  local found, err = patiently(task, function() return task.agent.engine:container_inspect(name) end)
  if not found then return nil, err.status ~= 404 and err or nil end
  return driver.intended_id(found, task.intent)
end

-- Waits until the last lines are read, before the container is removed. As long as that may take while the engine is away.
local function await_logs(task)
  if task.logs then pcall(task.logs.await, task.logs, task.killed and 5 or 60) end
  task.logs = nil
end

--- Removes the container, if there is one: of an attempt that failed, or before the next. nil, err where it cannot.
---@param task Task
---@return true? ok
---@return table? err
function M.discard(task)
  local id, unknown = find_container(task)
  if unknown then return nil, unknown end
  if not id then
    if task.answered then task.intent = nil end  -- else the engine may be at it still
    return true
  end
  await_logs(task)
  task.agent.watch:remove(id)
  local ok, err = driver.remove(task.agent.engine, id, task.killed)
  if not ok then return nil, err end
  task.container_id, task.intent = nil, nil
  task:emit("removed", { container_id = id })
  return true
end

--- Gives back what the task had.
---@param task Task
function M.cleanup(task)
  if task.agent.options["docker.cleanup.container"] or not task.result then
    local ok, err = M.discard(task)
    if not ok then task:emit("failed", { message = "clean-up: " .. tostring(err), container_id = task.container_id }) end
  else
    await_logs(task)
  end
  task.agent.watch:remove(task.container_id or "")
  release_ports(task)
  if task.context.image then task.agent.state:touch_image(task.context.image.reference.full) end
end

--- How a container ends that is killed.
M.at_once = { signal = "SIGKILL", timeout = 0 }

--- Ends a container as its job, or a `kill` hook, wants: a signal, and SIGKILL after the time-out. Goes on trying while
--- the engine cannot be reached.
---@param task Task
---@param how { signal: string, timeout: number }
---@return true? ok  also where there is no such container any more
---@return table? err
function M.end_container(task, how)
  local engine, id, pause = task.agent.engine, task.container_id, 0.2
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
    if err.status == 404 then  -- of this container, or of what became of its name on the way?
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
