--- Sets a task up: its ports, directories, environment and interpolated text, which it keeps for its whole life; and takes
--- them over from a process that ended. lifecycle.lua says when. Never asks the engine for a change. A function raises what
--- went wrong; `release_ports` and container.cleanup undo what it did.
local allocdir = require "dockrun.driver.allocdir"
local driver = require "dockrun.driver.docker"
local network = require "dockrun.driver.network"
local env = require "dockrun.task.env"
local interpolate = require "dockrun.job.interpolate"
local policy = require "dockrun.driver.policy"
local ports = require "dockrun.task.ports"
local revalidate = require "dockrun.job.revalidate"
local runtime = require "dockrun.core.runtime"
local tables = require "dockrun.util.tables"

local M = {}

-- Raises err unless the call gave a value.
local function must(value, err)
  if not value then error(err, 0) end
  return value
end

-- ---- setup ------------------------------------------------------------------------------------

-- Puts the container that publishes the port into the error: more useful than the name of the engine's proxy process.
local function name_holder(engine, err)
  local holder = network.holder_of(engine, err.port)
  if not holder then return end
  err.holder = holder
  err.message = ("port %d is in use by %s; free it or use a dynamic port"):format(err.port, holder)
end

local function owner_of(task) return ("%s.%s[%d].%s"):format(task.job, task.group, task.context.alloc.index, task.name) end

local function take_ports(task, asked)
  local services, context = task.services, task.context
  local lease = ports.lease_port(services, task)
  local mappings, err = ports.allocate(services.ports, services.bind_ip, context.ip, asked, owner_of(task), lease)
  if not mappings then
    if err.kind == "taken" and err.port and not err.alloc then name_holder(services.engine, err) end
    error(err, 0)
  end
  context.ports, task.held_ports = mappings, {}
  for i, mapping in ipairs(mappings) do task.held_ports[i] = mapping.host_port end
end

--- Releases the ports that this task holds; not those that it held earlier, which another task may have now.
---@param task Task
function M.release_ports(task)
  local services = task.services
  for _, port in ipairs(task.held_ports) do services.ports:release(services.bind_ip, port) end
  task.context.ports, task.held_ports = {}, {}
  local _, err = services.state:release { alloc = task.alloc_id, task = task.name }
  if err then services.warn(err) end
end

-- Takes over the ports that another process took for the task. nil, error of kind "taken": another task has them now, which
-- can happen if no container used them meanwhile.
local function keep_ports(task)
  local services, held = task.services, {}
  for _, port in ipairs(task.held_ports) do held[port] = true end
  for _, mapping in ipairs(task.context.ports) do
    local port = mapping.host_port
    local ok, err = services.state:lease {
      ip = services.bind_ip, port = port, alloc = task.alloc_id, task = task.name, label = mapping.label,
    }
    if ok and not held[port] then ok, err = services.ports:adopt(services.bind_ip, port, owner_of(task)) end
    if not ok then return nil, err end
    if not held[port] then table.insert(task.held_ports, port) end
  end
  return true
end

-- None if the engine is on another host.
local function name_dirs(task)
  local context = task.context
  if not task.services.engine:endpoint():find "^unix:" then return end
  context.dirs = allocdir.of(task.services.options.state_dir, context.alloc.id, task.name)
end

local function make_dirs(task)
  name_dirs(task)
  if task.context.dirs then must(allocdir.make(task.context.dirs)) end
end

--- Builds the environment, and interpolates the task's text: context.draft or context.spec becomes context.resolved.
---@param task Task
function M.resolve(task)
  local context = task.context
  local source = context.draft or context.spec
  context.resolved = source
  context.env = env.build(context)
  context.resolved = must(interpolate.task(source, {
    env = context.env, attr = task.services.attributes, node = task.services.node, meta = env.meta(context.job, context.group, source),
  }))
  context.env = env.build(context)
  context.image_asked = context.resolved.config.image
end

-- On the host's network, a port maps to itself.
local function asked_ports(context)
  local spec, asked = context.draft or context.spec, {}
  for i, port in ipairs(spec.resources.network.ports) do
    asked[i] = { label = port.label, static = port.static, to = spec.config.network_mode ~= "host" and port.to or nil }
  end
  return asked
end

-- Updates the container's ports after a hook has changed the host's: a port without `to` is the same as the host's. On the
-- host's network every port is.
local function follow(context, mappings)
  local same, before = {}, {}
  for _, port in ipairs(asked_ports(context)) do same[port.label] = port.to == nil end
  for _, mapping in ipairs(context.ports) do before[mapping.label] = mapping.container_port end
  local host = (context.draft or context.spec).config.network_mode == "host"
  for _, mapping in ipairs(mappings) do
    local untouched = same[mapping.label] and mapping.container_port == before[mapping.label]
    if host or untouched then mapping.container_port = mapping.host_port end
  end
end

-- Runs the `ports` hooks, and takes other ports if they changed any.
local function settle_ports(task)
  local context = task.context
  local mappings = tables.copy(context.ports)
  task:hook("ports", mappings)
  follow(context, mappings)
  local same = #mappings == #context.ports
  for i, mapping in ipairs(mappings) do same = same and mapping.host_port == context.ports[i].host_port end
  if not same then
    local asked = {}
    for i, mapping in ipairs(mappings) do asked[i] = { label = mapping.label, static = mapping.host_port } end
    M.release_ports(task)
    take_ports(task, asked)
  end
  context.ports = mappings
end

--- Sets up ports, directories and environment, which the task keeps for its whole life.
---@param task Task
---@param draft? table  a copy of its spec, for hooks to change
function M.setup(task, draft)
  local context = task.context
  task:hook("setup", draft)
  if draft then
    context.draft = must(revalidate.hooked(draft, context.spec, context.job, context.group))
    task.restarts.policy = context.draft.restart
  end
  make_dirs(task)
  take_ports(task, asked_ports(context))
  settle_ports(task)
  M.resolve(task)
  must(policy.check(task.context.resolved, task.services.options, { dirs = task.context.dirs }))
  task:emit("setup", { ports = task.context.ports })
end

--- Takes over what another process set up for the task. The ports are still the task's, even if its container does not use
--- them now.
---@param task Task
---@param container? table  Engine API, ContainerInspect; nil if there is none
function M.restore(task, container)
  local services, context = task.services, task.context
  if container then name_dirs(task) else make_dirs(task) end
  local kept, err = keep_ports(task)
  local runs = container and not driver.has_ended(container)
  if not kept and err.kind == "taken" and not runs then
    M.release_ports(task)
  elseif not kept then
    services.warn(err)
  end
  local without = #context.ports == 0 and #asked_ports(context) > 0
  task.lacks_ports = without or not kept
  if not without then M.resolve(task) end
  if container then
    context.image, context.stop_signal = driver.made_of(container)
  end
end

-- ---- other ports ------------------------------------------------------------------------------

-- Takes ports again, as the job and the hooks say. Raises if another task has a fixed one.
local function renew_ports(task)
  M.release_ports(task)
  take_ports(task, asked_ports(task.context))
  settle_ports(task)
  M.resolve(task)
end

--- Takes other ports after one was lost.
---@param task Task
---@param lost integer
function M.replace_ports(task, lost)
  runtime.sleep(0.05)
  renew_ports(task)
  task:emit("setup", { message = ("another process took port %d meanwhile; retrying"):format(lost) })
end

--- Before an attempt: takes ports if the task could not keep those that another process took for it.
---@param task Task
function M.regain_ports(task)
  if not task.lacks_ports then return end
  local kept, err
  if #task.context.ports > 0 then kept, err = keep_ports(task) end
  if err and err.kind ~= "taken" then error(err, 0) end
  if not kept then
    renew_ports(task)
    task:emit("setup", { ports = task.context.ports, message = "another task has its ports now; allocated other ports" })
  end
  task.lacks_ports = false
end

return M
