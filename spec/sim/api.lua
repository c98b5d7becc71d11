-- The operations of the simulated engine: one function each, (engine, path parameter…, options, done). It returns an
-- answer; or nil and an error; or M.later if it calls `done` later.
local engines = require "spec.sim.engine"
local json = require "dockrun.core.json"
local programs = require "spec.sim.programs"
local runtime = require "dockrun.core.runtime"

local M = {}

M.later = setmetatable({}, { __name = "answered later" })

local calls = {}
M.calls = calls

local function refuse(status, message) return nil, runtime.error("engine", message, { status = status }) end
local function no_such(name) return refuse(404, "No such container: " .. name) end

-- A copy: a table that went over the wire is shared with no one.
local function copy(value) return json.decode(json.encode(value)) end

-- ---- containers ---------------------------------------------------------------------------------

function calls.container_create(engine, options)
  local body, name = copy(options.body), options.name
  local other = name and engine:find(name)
  if other then
    return refuse(409, ('Conflict. The container name "/%s" is already in use by container "%s". ' ..
      "You have to remove (or rename) that container to be able to reuse that name."):format(name, other.Id))
  end
  if not engine.images[body.Image] then return refuse(404, "No such image: " .. body.Image) end
  return { Id = engine:create(name, body).Id, Warnings = json.array {} }
end

local function fail_to_start(container, code, status, message)
  container.State.ExitCode, container.State.Error = code, message
  return refuse(status, message)
end

function calls.container_start(engine, name)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if container.State.Running then return true end
  if container.removing then
    return refuse(409, "container is marked for removal and cannot be started")
  end
  for _, own in ipairs(engines.ports_of(container)) do
    local holder = engine:holder(own.port)
    if holder then
      return fail_to_start(container, 128, 500, ("driver failed programming external connectivity on endpoint %s (%s): %s"):format(
        container.Name:sub(2), container.Id, holder == "foreign"
          and ("Error starting userland proxy: listen tcp4 0.0.0.0:%d: bind: address already in use"):format(own.port)
          or ("Bind for 0.0.0.0:%d failed: port is already allocated"):format(own.port)))
    end
  end
  if not container.program then
    return fail_to_start(container, 127, 400, ('failed to create shim task: OCI runtime create failed: runc create failed: ' ..
      'unable to start container process: exec: "%s": executable file not found in $PATH: unknown'):format(container.Config.Cmd[1]))
  end
  engine:begin(container)
  return true
end

function calls.container_stop(engine, name, options, done)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if not container.State.Running then return true end
  engines.when_ended(container, function()
    engine:tell(container, "stop")
    done(true)
  end)
  engine:signal(container, container.Config.StopSignal)
  local run = container.run
  engine.sched:after(options.t or 10, function()
    if container.run == run and container.State.Running and not engine.down then engine:signal(container, "9") end
  end)
  return M.later
end

function calls.container_kill(engine, name, options)
  local container = engine:find(name)
  if not container then return refuse(404, ("Cannot kill container: %s: No such container: %s"):format(name, name)) end
  if not container.State.Running then
    return refuse(409, ("Cannot kill container: %s: Container %s is not running"):format(name, container.Id))
  end
  engine:signal(container, options.signal or "SIGKILL")
  return true
end

local REMOVAL = 0.02  -- seconds

function calls.container_remove(engine, name, options, done)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if container.removing then
    return refuse(409, ("removal of container %s is already in progress"):format(name))
  end
  if container.State.Running and not options.force then
    return refuse(409, ("You cannot remove a running container %s. Stop the container before attempting removal or force remove")
      :format(container.Id))
  end
  container.removing = true
  if container.State.Running then engine:signal(container, "SIGKILL") end
  engines.when_ended(container, function()
    container.State.Status = "removing"
    engine.sched:after(REMOVAL, function()
      if engine.down then return end
      engine:forget(container)
      done(true)
    end)
  end)
  return M.later
end

function calls.container_update(engine, name, options)
  local container = engine:find(name)
  if not container then return no_such(name) end
  for key, value in pairs(copy(options.body)) do container.HostConfig[key] = value end
  engine:tell(container, "update")
  return { Warnings = json.array {} }
end

function calls.container_wait(engine, name, _, done)
  local container = engine:find(name)
  if not container then return no_such(name) end
  engines.when_ended(container, function() done { StatusCode = container.State.ExitCode } end)
  return M.later
end

function calls.container_inspect(engine, name)
  local container = engine:find(name)
  if not container then return no_such(name) end
  local host = container.HostConfig
  return copy {
    Id = container.Id, Name = container.Name, Image = container.Image, Created = container.Created, Config = container.Config,
    State = container.State, RestartCount = 0, NetworkSettings = { Networks = {} }, HostConfig = {
      Memory = host.Memory or 0, MemoryReservation = host.MemoryReservation or 0, CpuShares = host.CpuShares or 0,
      CpuQuota = host.CpuQuota or 0, CpusetCpus = host.CpusetCpus or "", PidsLimit = host.PidsLimit,
    },
  }
end

local function has_labels(container, wanted)
  for _, one in ipairs(wanted or {}) do
    local key, value = one:match "^([^=]+)=?(.*)$"
    local own = container.Config.Labels[key]
    if own == nil or one:find "=" and own ~= value then return false end
  end
  return true
end

local function is_listed(container, options)
  local filters = options.filters or {}
  if not has_labels(container, filters.label) then return false end
  if not filters.status then return options.all or container.State.Running end
  for _, status in ipairs(filters.status) do
    if container.State.Status == status then return true end
  end
  return false
end

-- The status as people read it: "Up 3 seconds (healthy)", "Exited (0) 2 seconds ago".
local function status_text(container)
  local state = container.State
  if state.Running then
    local health = state.Health and (" (%s)"):format(state.Health.Status == "starting" and "health: starting" or state.Health.Status)
    return "Up 1 second" .. (health or "")
  end
  if state.Status == "created" then return "Created" end
  return ("Exited (%d) 1 second ago"):format(state.ExitCode)
end

function calls.container_list(engine, options)
  local list = json.array {}
  for i = #engine.order, 1, -1 do
    local container = engine.order[i]
    if is_listed(container, options) then
      local ports = json.array {}
      for _, own in ipairs(container.State.Running and engines.ports_of(container) or {}) do
        local private, protocol = own.key:match "^(%d+)/(%a+)$"
        ports[#ports + 1] = { PublicPort = own.port, Type = protocol, PrivatePort = math.tointeger(tonumber(private)) }
      end
      list[#list + 1] = {
        Id = container.Id, Names = { container.Name }, Image = container.Config.Image, ImageID = container.Image,
        Labels = container.Config.Labels, State = container.State.Status, Status = status_text(container), Ports = ports,
      }
    end
  end
  return copy(list)
end

-- ---- commands in containers ---------------------------------------------------------------------

-- The commands `true` and `false` succeed and fail; any other command is the program's own check.
local function exit_code_of(engine, container, command)
  if command[1] == "true" then return 0 end
  if command[1] == "false" then return 1 end
  return programs.is_well(container.program, engine.sched.time - container.began) and 0 or 1
end

function calls.exec_create(engine, name, options)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if not container.State.Running then return refuse(409, ("Container %s is not running"):format(container.Id)) end
  local id = ("%064x"):format(#engine.execs + 1)
  table.insert(engine.execs, { id = id, container = container, command = options.body.Cmd })
  engine.execs[id] = engine.execs[#engine.execs]
  return { Id = id }
end

function calls.exec_inspect(engine, id)
  local exec = engine.execs[id]
  if not exec then return refuse(404, "No such exec instance: " .. id) end
  return { ID = id, Running = exec.code == nil, ExitCode = exec.code }
end

--- Runs the command; the client handles its stream.
function M.exec(engine, id)
  local exec = engine.execs[id]
  if not exec then return refuse(404, "No such exec instance: " .. id) end
  if not exec.container.State.Running then return refuse(409, ("Container %s is not running"):format(exec.container.Id)) end
  exec.code = exit_code_of(engine, exec.container, exec.command)
  return true
end

-- ---- images -------------------------------------------------------------------------------------

function calls.image_inspect(engine, ref)
  local image = engine.images[ref]
  if not image then return refuse(404, ("no such image: %s: No such image: %s"):format(ref, ref)) end
  return { Id = image.Id, RepoTags = { ref } }
end

function calls.image_remove(engine, ref)
  local image = engine.images[ref]
  if not image then return refuse(404, "No such image: " .. ref) end
  for _, container in ipairs(engine.order) do
    if container.Image == image.Id then
      return refuse(409, container.State.Running
        and ('conflict: unable to remove repository reference "%s" (must force) - container %s is using its referenced image %s')
          :format(ref, container.Id:sub(1, 12), image.Id:sub(8, 19))
        or ('conflict: unable to remove repository reference "%s" (must force) - container %s is using its referenced image %s')
          :format(ref, container.Id:sub(1, 12), image.Id:sub(8, 19)))
    end
  end
  engine.images[ref] = nil
  engine.changes = engine.changes + 1
  return json.array { { Untagged = ref }, { Deleted = image.Id } }
end

--- Asks the registry about a reference; nothing is pulled yet.
function M.look_up(engine, ref)
  if engine.registry_down then
    return refuse(500, ("Get http://registry.sim/v2/: dial tcp: connect: connection refused"))
  end
  local image = engine.registry[ref]
  if not image then
    return refuse(404, ("manifest for %s not found: manifest unknown: manifest unknown"):format(ref))
  end
  return image
end

-- ---- the rest -----------------------------------------------------------------------------------

function calls.system_ping() return "OK" end
function calls.version() return { Version = "20.10.24+sim", ApiVersion = "1.41", MinAPIVersion = "1.12" } end
function calls.info() return { OSType = "linux", CgroupVersion = "1", Runtimes = { runc = { path = "runc" } } } end
function calls.network_list() return json.array {} end
function calls.network_inspect() return { IPAM = { Config = { { Gateway = "172.17.0.1" } } } } end

return M
