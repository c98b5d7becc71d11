-- The Docker driver: a task becomes the engine's create body; a container becomes the task's end.
local again = require "dockrun.driver.retry"
local json = require "dockrun.core.json"
local container_config = require "dockrun.driver.container_config"
local job_files = require "dockrun.driver.job_files"
local limits = require "dockrun.driver.limits"
local options = require "dockrun.options"
local runtime = require "dockrun.core.runtime"
local tables = require "dockrun.util.tables"

local M = {}

M.labels = {
  job = "dockrun.job", group = "dockrun.group", task = "dockrun.task", alloc = "dockrun.alloc", index = "dockrun.index",
  spec = "dockrun.spec", runtime = "dockrun.runtime", ports = "dockrun.ports",
  kill_timeout = "dockrun.kill_timeout", state = "dockrun.state", definition = "dockrun.definition", alloc_dir = "dockrun.alloc_dir",
  intent = "dockrun.intent", type = "dockrun.type",
}

--- Network modes in which the container has no ports of its own to publish.
M.unpublished = { host = true, none = true }

---@class TaskContext
---@field job table      the normalised job
---@field group table
---@field task table
---@field alloc { id: string, index: integer }
---@field ip string      the node's address (NOMAD_IP)
---@field state_id? string  the state that knows the container
---@field intent? string    names this very creation: the state has it before the engine is asked
---@field bind_ip string address that ports are bound on, "" for all
---@field ports { label: string, ip: string, host_port: integer, container_port: integer, protocols: string[] }[]
---@field env table<string, string>
---@field stop_signal? string  of the container that is there
---@field image_asked? string   the image as the job names it, before `pull` hooks
---@field dirs? AllocDirs  nil where the engine is on another host
---@field moved? string[]  paths of the allocation that other tasks see from their next start on, see places.lua
---@field image? { id: string, reference: table, pulled: boolean, stop_signal?: string }

--- What the container of a task is called.
---@param task string
---@param alloc_id string
---@return string
function M.name(task, alloc_id) return task .. "-" .. alloc_id end

---@param context TaskContext
---@return string
function M.container_name(context) return M.name(context.task.name, context.alloc.id) end

local function sorted_env(env)
  local list = {}
  for name, value in pairs(env) do list[#list + 1] = name .. "=" .. value end
  table.sort(list)
  return list
end

local function canonical(value)
  if type(value) ~= "table" then return type(value) == "function" and "function" or tostring(value) end
  local parts = {}
  for key, item in pairs(value) do parts[#parts + 1] = tostring(key) .. "=" .. canonical(item) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Credentials are no part of a container, and anybody who can ask the engine can read its labels.
local function without_credentials(task)
  local copy, kept = {}, {}
  for key, value in pairs(task) do copy[key] = value end
  for key, value in pairs(task.config) do
    if key ~= "auth" then kept[key] = value end
  end
  copy.config = kept
  return copy
end

--- A short name for what a task is: the same for the same spec, in every process. FNV-1a, 64 bits
--- (www.isthe.com/chongo/tech/comp/fnv), over the task with its keys in order.
---@param task table
---@return string hex
function M.spec_hash(task)
  local hash = 0xcbf29ce484222325
  for byte in canonical(without_credentials(task)):gmatch "." do hash = (hash ~ byte:byte()) * 0x100000001b3 end
  return ("%016x"):format(hash)
end

--- A task as a later `plan` compares it: its JSON, as the job has it, without functions (they have no text) and without
--- credentials.
---@param task table
---@param meta? table<string, string>  of its job, its group and its own, which its environment tells
---@return string
function M.definition(task, meta)
  local plain = tables.copy_data(without_credentials(task))
  plain.hooks, plain.meta = nil, meta or plain.meta
  return json.encode(plain)
end

local function command_of(task)
  if not task.config.command then return nil end
  return { task.config.command, table.unpack(task.config.args or {}) }
end

--- The signal that asks a task's container to end: what it was made with, or would be: its job's, else its image's, else
--- SIGTERM.
---@param context TaskContext
---@return string
function M.stop_signal(context)
  local of_image = context.image and context.image.stop_signal
  for _, signal in ipairs { context.stop_signal or "", context.task.kill_signal or "", of_image or "" } do
    if signal ~= "" then return signal end
  end
  return "SIGTERM"
end

-- Every mapping binds tcp and udp (contract §3).
local function publish(body, context)
  if M.unpublished[context.task.config.network_mode] then return end
  for _, port in ipairs(context.ports) do
    for _, protocol in ipairs(port.protocols) do
      local key = ("%d/%s"):format(port.container_port, protocol)
      body.ExposedPorts = body.ExposedPorts or {}
      body.ExposedPorts[key] = {}
      local bindings = body.HostConfig.PortBindings or {}
      body.HostConfig.PortBindings = bindings
      bindings[key] = bindings[key] or {}
      table.insert(bindings[key], { HostIp = context.bind_ip, HostPort = tostring(port.host_port) })
    end
  end
end

-- The job's own labels, and ours over them.
local function labels_of(context)
  local task, labels = context.task, {}
  for name, value in pairs(task.config.labels or {}) do labels[name] = value end
  labels[M.labels.job] = context.job.name
  labels[M.labels.group] = context.group.name
  labels[M.labels.task] = task.name
  labels[M.labels.alloc] = context.alloc.id
  labels[M.labels.index] = tostring(context.alloc.index)
  labels[M.labels.spec] = M.spec_hash(task)
  labels[M.labels.runtime] = "dockrun/" .. runtime.version
  labels[M.labels.ports] = json.encode(json.array(context.ports))
  labels[M.labels.kill_timeout] = tostring(task.kill_timeout)
  labels[M.labels.state] = context.state_id
  labels[M.labels.definition] = M.definition(context.spec or task, context.meta)
  labels[M.labels.alloc_dir] = context.dirs and context.dirs.root
  labels[M.labels.intent], labels[M.labels.type] = context.intent, context.job.type
  return labels
end

--- The body of POST /containers/create (Engine API v1.41) for a task.
---@param context TaskContext
---@param set? table<string, any>  the agent's options; the defaults where left out
---@return table? body
---@return table? err  kind "invalid": names the option of `container_config` that cannot be had
function M.body(context, set)
  local task = context.task
  local body = {
    Image = context.image and context.image.reference.full or task.config.image,
    Cmd = command_of(task),
    Env = sorted_env(context.env),
    User = task.user,
    StopSignal = task.kill_signal, StopTimeout = math.ceil(task.kill_timeout),  -- for the engine's own stops and its shutdown
    Labels = labels_of(context),
    HostConfig = { RestartPolicy = { Name = "no" } },  -- restarts are policy, and policy is here
  }
  local ok, err = container_config.apply(body, context, set or options.new())
  if not ok then return nil, err end
  publish(body, context)
  return body
end

--- The image of a task, on the engine: loaded from its archive, or pulled as its container_config wants.
---@param images ImagePuller
---@param context TaskContext
---@param opts table  as for ImagePuller:ensure
---@return { id: string, reference: Reference, pulled: boolean }? image
---@return table? err
function M.image(images, context, opts)
  local wanted = context.task.config
  if not wanted.load then
    opts.force, opts.timeout = wanted.force_pull, wanted.image_pull_timeout
    opts.auth, opts.auth_soft_fail = wanted.auth, wanted.auth_soft_fail
    return images:ensure(wanted.image, opts)
  end
  local read, file = job_files.open(context.dirs, wanted.load, images.options)
  if not read then
    file.message = "config.load: " .. file.message
    return nil, file
  end
  local _ <close> = file
  return images:load(wanted.image, read, opts.owner)
end

--- Removes a container with its anonymous volumes, whatever its state, and waits until it is gone: also where another
--- process is at it. An engine that ends meanwhile may leave a removal half done; then it has to be asked again.
---@param engine table
---@param id string
---@param once? boolean  without patience
---@return true? ok  also where there is none
---@return table? err
function M.remove(engine, id, once)
  local function call() return engine:container_remove(id, { force = true, v = true }) end
  local function may_pass(err) return not once and (again.may_pass(err) or err.status == 409) end
  local ok, err = again.again(call, may_pass)
  if ok or err.status == 404 or once and err.status == 409 then return true end
  return nil, err
end

--- Whether a container came of the intent to make it.
---@param found table   Engine API, ContainerInspect
---@param intent? string
---@return boolean
function M.is_intended(found, intent)
  return intent ~= nil and (found.Config.Labels or {})[M.labels.intent] == intent
end

-- A container of this name is there already. One that came of the same intent is a leftover, and is removed; any other stays.
local function purge(engine, name, intent)
  local found, err = again.again(function() return engine:container_inspect(name) end)
  if not found then return err.status == 404, err end
  if M.is_intended(found, intent) then return M.remove(engine, found.Id) end
  return nil, runtime.error("taken", ("the name '%s' belongs to container %s, which this state did not record; rename or remove it"):format(
    name, found.Id:sub(1, 12)))
end

-- Before API 1.44 the MAC address stood at the top of the body.
local function add_mac_address(engine, body)
  local _, network = next(body.NetworkingConfig and body.NetworkingConfig.EndpointsConfig or {})
  local address = network and network.MacAddress
  if address and tonumber(engine:api():match "%d+$") < 44 then body.MacAddress = address end
end

--- What of a request the engine did not do, as its answer tells: a sentence, or nil.
---@param answer { Warnings?: string[] }
---@return string?
function M.limitations(answer)
  local list = type(answer.Warnings) == "table" and answer.Warnings or {}
  return #list > 0 and table.concat(list, "; ") or nil
end

--- Creates a container, purging a leftover of the same name and the same intent.
---@param engine table
---@param name string
---@param body table  of M.body
---@param attempts? integer  how often a leftover is removed: container_exists_attempts of `container_config`, 5 if left out
---@return string? id
---@return table? err
---@return string? warnings  what of the body the engine did not do
function M.create(engine, name, body, attempts)
  add_mac_address(engine, body)
  local created, err
  for attempt = 1, 1 + (attempts or 5) do
    created, err = again.again(function() return engine:container_create { name = name, body = body } end, again.is_unheard)
    if created then return created.Id, nil, M.limitations(created) end
    if err.status ~= 409 or attempt > (attempts or 5) then return nil, err end
    local ok, why = purge(engine, name, (body.Labels or {})[M.labels.intent])
    if not ok then return nil, why end
    runtime.sleep(0.05 * 2 ^ attempt)
  end
  return nil, err
end

--- Starts a container, once: where the engine's answer does not come, it is looked at, and not started again if it has run.
---@param engine table
---@param id string
---@return true? ok
---@return table? err
function M.start(engine, id)
  return again.again(function()
    local ok, err = engine:container_start(id)
    if not again.is_unheard(err) then return ok, err end
    local found, unknown = again.again(function() return engine:container_inspect(id) end)
    if not found then return nil, unknown end
    if found.State.Status ~= "created" then return true end
    return nil, err
  end, again.is_unheard)
end

--- The IPv6 address of a running container, where its job wants it to be told (advertise_ipv6_address).
---@param engine table
---@param id string
---@param wanted table  the task's container_config
---@return string? address
function M.advertised(engine, id, wanted)
  local found = wanted.advertise_ipv6_address and engine:container_inspect(id)
  for _, network in pairs(found and found.NetworkSettings.Networks or {}) do
    if network.GlobalIPv6Address ~= "" then return network.GlobalIPv6Address end
  end
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
---@return string? warnings  what the engine did not do
function M.update(engine, id, task)
  local body, err = limits.update_body(task)
  if not body then return nil, err end
  local answer
  answer, err = engine:container_update(id, { body = body })
  if answer then return true, nil, M.limitations(answer) end
  return nil, runtime.error("engine", ("cannot change the limits of task '%s' (%d MB, %d MHz): %s"):format(
    task.name, task.resources.memory, task.resources.cpu, err), { status = err.status })
end

-- What the engine says when a host port went to somebody else between our probe and its bind.
local lost_port = { "port is already allocated", "address already in use", "failed to bind host port" }

--- The host port that a failed start lost to somebody else.
---@param err table
---@return boolean lost
---@return integer? port  where the engine names it
function M.lost_port(err)
  for _, text in ipairs(lost_port) do
    if err.message:find(text, 1, true) then
      local port = err.message:match ":(%d+) failed" or err.message:match ":(%d+): bind" or err.message:match ":(%d+)"
      return true, math.tointeger(tonumber(port))
    end
  end
  return false
end

---@class TaskResult
---@field exit_code? integer
---@field signal? integer   the signal that ended it, where its exit code tells (128 + n)
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

-- What is known of a container that is no longer there: its last event.
local function vanished(died)
  local code = died and math.tointeger(tonumber(died.attributes.exitCode))
  local result = M.result { ExitCode = code }
  result.error = "the container was removed from outside of dockrun"
  return result
end

-- States in which a container does not run and has not ended either. Podman's `stopping` lasts as long as the grace period.
local before_the_end = { created = true, configured = true, initialized = true, stopping = true }

--- Whether a container has run and has ended.
---@param state table  Engine API, ContainerState
---@return boolean
function M.has_ended(state) return not (state.Running or state.Restarting or before_the_end[state.Status]) end

-- Events after which a container may have ended. `remove` is Podman's `destroy`.
local ends = { die = true, destroy = true, remove = true, resync = true }

-- Seconds between two looks at a container that could not be looked at.
local SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 5

--- Waits until a container has ended.
---@param engine table
---@param id string
---@param queue table   from Watch:add
---@param seen? fun(event: table)  told of every event on the way
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
      if found and M.has_ended(found.State) then return M.result(found.State) end
      if not found and err.status == 404 then return vanished(died) end
      -- Of a container that is stopping, not every engine tells the end.
      pause = (not found or found.State.Status == "stopping") and math.min((pause or SHORTEST_PAUSE / 2) * 2, LONGEST_PAUSE) or nil
    end
  end
end

--- The handle of a running task, as it is printed and kept.
---@param image_id string
---@param container_id string
---@return string
function M.handle(image_id, container_id)
  return ('DOCKER:{"ImageID":%s,"ContainerID":%s}'):format(json.encode(image_id), json.encode(container_id))
end

--- What a handle stands for.
---@param handle string
---@return { image_id: string, container_id: string }? ids
---@return table? err  kind "invalid"
function M.parse_handle(handle)
  local ids = json.decode(handle:match "^DOCKER:(.*)$" or "")
  if type(ids) ~= "table" or type(ids.ContainerID) ~= "string" then
    return nil, runtime.error("invalid", ("'%s' is not a handle (DOCKER:{\"ImageID\":…,\"ContainerID\":…})"):format(handle))
  end
  return { image_id = ids.ImageID, container_id = ids.ContainerID }
end

return M
