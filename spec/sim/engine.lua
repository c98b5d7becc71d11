-- A simulated Docker engine: what API 1.41 does, as far as dockrun's policy asks it; spec/sim/likeness_spec.lua holds it
-- against a real one. It outlives the processes that call it.
--
-- A container's program is its command `sim` and one argument in JSON: { run = seconds (none: for ever), exit = code,
-- ignore = true (SIGTERM does nothing), oom = true }.
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class SimEngine
---@field sched Scheduler
---@field containers table<string, table>  by id
---@field order string[]                   ids, oldest first
---@field images table<string, string>     reference -> id
---@field registry table<string, boolean>  references that can be pulled
---@field registry_down boolean
---@field down boolean                     nobody listens
---@field foreign table<integer, boolean>  host ports that some other program has
local Engine = {}
Engine.__index = Engine

---@param sched Scheduler
---@return SimEngine
function M.new(sched)
  return setmetatable({
    sched = sched, containers = {}, order = {}, images = {}, registry = {}, log = {}, streams = {}, foreign = {}, made = 0,
    down = false, registry_down = false,
  }, Engine)
end

local function refuse(status, message) return nil, runtime.error("engine", message, { status = status }) end

-- ---- events -------------------------------------------------------------------------------------

local function stamp(seconds) return ("%d.%09d"):format(1700000000 + math.floor(seconds), math.floor(seconds % 1 * 1e9)) end

function Engine:tell(container, action, attributes)
  local all = { name = container.Name:sub(2), image = container.Config.Image }
  for key, value in pairs(container.Config.Labels or {}) do all[key] = value end
  for key, value in pairs(attributes or {}) do all[key] = value end
  local at = stamp(self.sched.time)
  local event = {
    Type = "container", Action = action, at = at, text = ('{"timeNano":%s}'):format(at:gsub("%.", "")),
    Actor = { ID = container.Id, Attributes = all },
  }
  self.log[#self.log + 1] = event
  for _, stream in ipairs(self.streams) do stream:offer(event) end
end

-- ---- containers ---------------------------------------------------------------------------------

function Engine:find(name)
  if self.containers[name] then return self.containers[name] end
  for _, id in ipairs(self.order) do
    local container = self.containers[id]
    if container.Name == "/" .. name then return container end
  end
end

local function no_such(name) return refuse(404, "No such container: " .. name) end

local function ports_of(container)
  local ports = {}
  for key, bindings in pairs(container.HostConfig.PortBindings or {}) do
    for _, binding in ipairs(bindings) do ports[#ports + 1] = { key = key, port = math.tointeger(tonumber(binding.HostPort)) } end
  end
  table.sort(ports, function(a, b) return a.key < b.key end)
  return ports
end

local function program(container)
  local command = container.Config.Cmd or {}
  if command[1] ~= "sim" then return nil end
  return json.decode(command[2] or "{}")
end

--- The holder of a host port: a container's name, "foreign", or nil.
function Engine:holder(port)
  if self.foreign[port] then return "foreign" end
  for _, id in ipairs(self.order) do
    local container = self.containers[id]
    if container.State.Running then
      for _, own in ipairs(ports_of(container)) do
        if own.port == port then return container.Name end
      end
    end
  end
end

local calls = {}

function calls.container_create(engine, options)
  local body, name = options.body, options.name
  if name and engine:find(name) then
    return refuse(409, ('Conflict. The container name "/%s" is already in use by container "%s". ' ..
      "You have to remove (or rename) that container to be able to reuse that name."):format(name, engine:find(name).Id))
  end
  if not engine.images[body.Image] then return refuse(404, "No such image: " .. body.Image) end
  engine.made = engine.made + 1
  local id = ("%064x"):format(engine.made)
  engine.containers[id] = {
    Id = id, Name = "/" .. (name or "sim" .. engine.made), Image = engine.images[body.Image], Created = stamp(engine.sched.time),
    Config = { Image = body.Image, Cmd = body.Cmd, Env = body.Env, Labels = body.Labels or {}, Tty = body.Tty or false },
    HostConfig = body.HostConfig or {}, RestartCount = 0,
    State = {
      Status = "created", Running = false, Paused = false, Restarting = false, OOMKilled = false, Dead = false, Pid = 0, ExitCode = 0,
      Error = "", StartedAt = "0001-01-01T00:00:00Z", FinishedAt = "0001-01-01T00:00:00Z",
    },
  }
  engine.order[#engine.order + 1] = id
  engine:tell(engine.containers[id], "create")
  return { Id = id, Warnings = {} }
end

function Engine:exit(container, code, oom)
  local state = container.State
  if not state.Running then return end
  if oom then
    state.OOMKilled = true
    self:tell(container, "oom")
  end
  state.Running, state.Status, state.ExitCode, state.Pid = false, "exited", code, 0
  state.FinishedAt = "2023-11-14T22:13:20Z"
  self:tell(container, "die", { exitCode = tostring(code) })
  for _, ended in ipairs(container.waiters or {}) do ended() end
  container.waiters = nil
end

function calls.container_start(engine, name)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if container.State.Running then return true end
  for _, own in ipairs(ports_of(container)) do
    if engine:holder(own.port) then
      return refuse(500, ("driver failed programming external connectivity on endpoint %s: Bind for 0.0.0.0:%d failed: " ..
        "port is already allocated"):format(container.Name:sub(2), own.port))
    end
  end
  local what = program(container)
  if not what then
    container.State.ExitCode = 127
    return refuse(400, ('failed to create shim task: OCI runtime create failed: runc create failed: unable to start container ' ..
      'process: exec: "%s": executable file not found in $PATH: unknown'):format((container.Config.Cmd or {})[1]))
  end
  local state = container.State
  state.Running, state.Status, state.Pid, state.ExitCode, state.OOMKilled = true, "running", 1000 + engine.made, 0, false
  state.StartedAt = "2023-11-14T22:13:20Z"
  container.run = (container.run or 0) + 1
  local run = container.run
  engine:tell(container, "start")
  if what.run then
    engine.sched:after(what.run, function()
      if container.run == run then engine:exit(container, what.oom and 137 or what.exit or 0, what.oom) end
    end)
  end
  return true
end

-- A signal that asks: the program ends a moment later, or does not listen.
local function ask_to_end(engine, container)
  local what = program(container)
  if what.ignore then return end
  engine.sched:after(0.01, function() engine:exit(container, what.on_term or 143) end)
end

function calls.container_stop(engine, name, options, done)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if not container.State.Running then return true end
  container.waiters = container.waiters or {}
  table.insert(container.waiters, function() done(true) end)
  engine:tell(container, "kill", { signal = "15" })
  ask_to_end(engine, container)
  local run = container.run
  engine.sched:after((options or {}).t or 10, function()
    if container.run == run then engine:exit(container, 137) end
  end)
  return M.later
end

function calls.container_kill(engine, name, options)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if not container.State.Running then
    return refuse(409, ("Cannot kill container: %s: Container %s is not running"):format(name, container.Id))
  end
  local signal = options and options.signal or "SIGKILL"
  engine:tell(container, "kill", { signal = signal })
  if signal == "SIGKILL" or signal == "9" then
    engine.sched:after(0.005, function() engine:exit(container, 137) end)
  elseif signal == "SIGTERM" then
    ask_to_end(engine, container)
  end
  return true
end

function calls.container_remove(engine, name, options)
  local container = engine:find(name)
  if not container then return no_such(name) end
  if container.State.Running and not (options and options.force) then
    return refuse(409, ("You cannot remove a running container %s. Stop the container before attempting removal or force remove")
      :format(container.Id))
  end
  if container.State.Running then
    engine:tell(container, "kill", { signal = "9" })
    engine:exit(container, 137)
  end
  engine.containers[container.Id] = nil
  for i, id in ipairs(engine.order) do
    if id == container.Id then table.remove(engine.order, i) break end
  end
  engine:tell(container, "destroy")
  return true
end

function calls.container_update(engine, name, options)
  local container = engine:find(name)
  if not container then return no_such(name) end
  for key, value in pairs(options.body) do container.HostConfig[key] = value end
  return { Warnings = {} }
end

-- A copy as the wire makes one.
local function copy(value) return json.decode(json.encode(value)) end

function calls.container_inspect(engine, name)
  local container = engine:find(name)
  if not container then return no_such(name) end
  local config = container.HostConfig
  return copy {
    Id = container.Id, Name = container.Name, Image = container.Image, Created = container.Created, Config = container.Config,
    State = container.State, RestartCount = 0, HostConfig = {
      Memory = config.Memory or 0, MemoryReservation = config.MemoryReservation or 0, CpuShares = config.CpuShares or 0,
      CpuQuota = config.CpuQuota or 0, CpusetCpus = config.CpusetCpus or "",
    },
  }
end

local function has_labels(container, wanted)
  for _, one in ipairs(wanted or {}) do
    local key, value = one:match "^([^=]+)=?(.*)$"
    local own = container.Config.Labels[key]
    if own == nil or value ~= "" and own ~= value then return false end
  end
  return true
end

function calls.container_list(engine, options)
  local list, filters = json.array {}, options and options.filters or {}
  for i = #engine.order, 1, -1 do
    local container = engine.containers[engine.order[i]]
    if (container.State.Running or options and options.all) and has_labels(container, filters.label) then
      local ports = json.array {}
      for _, own in ipairs(container.State.Running and ports_of(container) or {}) do ports[#ports + 1] = { PublicPort = own.port } end
      list[#list + 1] = {
        Id = container.Id, Names = { container.Name }, Image = container.Config.Image, ImageID = container.Image,
        Labels = container.Config.Labels, State = container.State.Status, Ports = ports,
      }
    end
  end
  return copy(list)
end

-- ---- images -------------------------------------------------------------------------------------

function calls.image_inspect(engine, ref)
  local id = engine.images[ref]
  if not id then return refuse(404, "No such image: " .. ref) end
  return { Id = id, RepoTags = { ref } }
end

function calls.image_remove(engine, ref)
  if not engine.images[ref] then return refuse(404, "No such image: " .. ref) end
  for _, id in ipairs(engine.order) do
    if engine.containers[id].Config.Image == ref then
      return refuse(409, ('conflict: unable to remove repository reference "%s" (must force) - container %s is using its ' ..
        "referenced image %s"):format(ref, id:sub(1, 12), engine.images[ref]))
    end
  end
  engine.images[ref] = nil
  return { { Untagged = ref } }
end

-- ---- the rest -----------------------------------------------------------------------------------

function calls.system_ping() return "OK" end
function calls.version() return { Version = "20.10.24+sim", ApiVersion = "1.41" } end
function calls.info() return { OSType = "linux", CgroupVersion = "1", Runtimes = { runc = {} } } end
function calls.network_inspect() return { IPAM = { Config = { { Gateway = "172.17.0.1" } } } } end

M.calls = calls
M.later = setmetatable({}, { __name = "answered later" })

return M
