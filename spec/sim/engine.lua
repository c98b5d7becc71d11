-- A simulated Docker engine (20.10, API 1.41), as far as dockrun's policy uses it: containers, their ends, images, events.
-- It outlives the processes that call it. Its operations are in api.lua; spec/sim/likeness_spec.lua compares both with a
-- real engine.
local clock = require "spec.sim.runtime"
local programs = require "spec.sim.programs"

local M = {}

local KEPT_EVENTS = 256  -- that the engine keeps for `since`

---@class SimEngine
---@field sched Scheduler
---@field containers table<string, table>  by id
---@field order table[]                    containers, oldest first
---@field images table<string, table>      by reference: { Id, checked }; checked: it has a HEALTHCHECK
---@field registry table<string, table>    references that can be pulled: the same
---@field registry_down boolean
---@field down boolean                     it accepts no connection
---@field foreign table<integer, boolean>  host ports of other programs
---@field connections table[]              to reset when the engine goes down: { reset = function }
---@field changes integer                  grows with every change of the containers
local Engine = {}
Engine.__index = Engine

---@param sched Scheduler
---@return SimEngine
function M.new(sched)
  return setmetatable({
    sched = sched, containers = {}, order = {}, images = {}, registry = {}, log = {}, feeds = {}, connections = {}, foreign = {},
    execs = {}, made = 0, changes = 0, down = false, registry_down = false,
  }, Engine)
end

-- ---- events -------------------------------------------------------------------------------------

local function wall(seconds) return clock.EPOCH + math.floor(seconds), math.floor(seconds % 1 * 1e9) end

--- The time now, in the format of inspect.
---@return string
function Engine:now()
  local seconds, nanoseconds = wall(self.sched.time)
  return ("%s.%09dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", seconds), nanoseconds)
end

--- The time now, in the format of events and their `since`.
---@return string
function Engine:stamp() return ("%d.%09d"):format(wall(self.sched.time)) end

---@param container table
---@param action string
---@param attributes? table<string, string>
function Engine:tell(container, action, attributes)
  local all = { name = container.Name:sub(2), image = container.Config.Image }
  for key, value in pairs(container.Config.Labels) do all[key] = value end
  for key, value in pairs(attributes or {}) do all[key] = value end
  local at = self:stamp()
  local event = {
    Type = "container", Action = action, at = at, timeNano = math.tointeger(tonumber((at:gsub("%.", "")))),
    Actor = { ID = container.Id, Attributes = all },
  }
  self.changes = self.changes + 1
  table.insert(self.log, event)
  if #self.log > KEPT_EVENTS then table.remove(self.log, 1) end
  for _, feed in ipairs(self.feeds) do feed:offer(event) end
end

-- ---- containers ---------------------------------------------------------------------------------

--- Finds a container by its id, the beginning of its id, or its name.
---@param name string
---@return table?
function Engine:find(name)
  if self.containers[name] then return self.containers[name] end
  for _, container in ipairs(self.order) do
    if container.Name == "/" .. name or #name >= 12 and container.Id:sub(1, #name) == name then return container end
  end
end

--- The host ports that a container binds while it runs.
---@param container table
---@return { key: string, port: integer }[]
function M.ports_of(container)
  if not container.ports then
    local ports = {}
    for key, bindings in pairs(container.HostConfig.PortBindings or {}) do
      for _, binding in ipairs(bindings) do ports[#ports + 1] = { key = key, port = math.tointeger(tonumber(binding.HostPort)) } end
    end
    table.sort(ports, function(a, b) return a.key < b.key end)
    container.ports = ports
  end
  return container.ports
end

--- The holder of a host port: a container, "foreign", or nil.
---@param port integer
---@return table|"foreign"|nil
function Engine:holder(port)
  if self.foreign[port] then return "foreign" end
  for _, container in ipairs(self.order) do
    if container.State.Running then
      for _, own in ipairs(M.ports_of(container)) do
        if own.port == port then return container end
      end
    end
  end
end

--- Creates a container.
---@param name? string
---@param body table  of POST /containers/create
---@return table container
function Engine:create(name, body)
  self.made = self.made + 1
  local image = self.images[body.Image]
  local container = {
    Id = ("%08x"):format(self.made * 2654435761 & 0xffffffff):rep(8), Name = "/" .. (name or "sim_" .. self.made), Image = image.Id,
    Created = self:now(), RestartCount = 0, HostConfig = body.HostConfig or {}, program = programs.parse(body.Cmd), run = 0,
    checked = image.checked and not (body.Healthcheck and body.Healthcheck.Test[1] == "NONE"),
    Config = {
      Image = body.Image, Cmd = body.Cmd, Env = body.Env, Labels = body.Labels or {}, Tty = body.Tty or false,
      StopSignal = body.StopSignal or "SIGTERM",
    },
    State = {
      Status = "created", Running = false, Paused = false, Restarting = false, OOMKilled = false, Dead = false, Pid = 0, ExitCode = 0,
      Error = "", StartedAt = "0001-01-01T00:00:00Z", FinishedAt = "0001-01-01T00:00:00Z",
    },
  }
  self.containers[container.Id] = container
  table.insert(self.order, container)
  self:tell(container, "create")
  return container
end

-- Runs `action` after some seconds, if the container is then still in the same run.
local function in_this_run(self, container, seconds, action)
  local run = container.run
  self.sched:after(seconds, function()
    if container.run == run and container.State.Running then action() end
  end)
end

local function look(self, container, state)
  container.State.Health = { Status = state, FailingStreak = state == "unhealthy" and 3 or 0 }
  if state ~= "starting" then self:tell(container, "health_status: " .. state) end
end

-- The image's HEALTHCHECK: it notices a change a moment later.
local function watch_health(self, container, program)
  look(self, container, "starting")
  local well = (program.well or 0) + 0.5
  if not program.sick or program.sick > well then
    in_this_run(self, container, well, function() look(self, container, "healthy") end)
  end
  if program.sick then
    in_this_run(self, container, program.sick + 0.5, function() look(self, container, "unhealthy") end)
  end
end

--- Starts the container's program.
---@param container table
function Engine:begin(container)
  local state, program = container.State, container.program
  state.Running, state.Status, state.ExitCode, state.OOMKilled, state.Error = true, "running", 0, false, ""
  state.StartedAt = self:now()
  self.pids = (self.pids or 1000) + 1
  state.Pid = self.pids
  container.run, container.began, container.oom_kills = container.run + 1, self.sched.time, 0
  self:tell(container, "start")
  if container.checked then watch_health(self, container, program) end
  if program.run then
    in_this_run(self, container, program.run, function()
      if program.oom then
        container.oom_kills = 1
        self:exit(container, 137, true)
      else
        self:exit(container, program.exit or 0)
      end
    end)
  end
end

--- Ends the container's program.
---@param container table
---@param code integer
---@param oom? boolean
function Engine:exit(container, code, oom)
  local state = container.State
  if not state.Running then return end
  if oom then
    state.OOMKilled = true
    self:tell(container, "oom")
  end
  state.Running, state.Status, state.ExitCode, state.Pid = false, "exited", code, 0
  state.FinishedAt = self:now()
  if state.Health then state.Health.Status = "unhealthy" end
  self:tell(container, "die", { exitCode = tostring(code) })
  local waiting = container.waiting or {}
  container.waiting = nil
  for _, ended in ipairs(waiting) do ended() end
end

--- Calls `ended` once the container has stopped.
---@param container table
---@param ended fun()
function M.when_ended(container, ended)
  if not container.State.Running then return ended() end
  container.waiting = container.waiting or {}
  table.insert(container.waiting, ended)
end

--- Sends the container's program a signal.
---@param container table
---@param signal string
function Engine:signal(container, signal)
  local number, code = programs.signal(container.program, signal)
  self:tell(container, "kill", { signal = tostring(number) })
  if code then in_this_run(self, container, 0.01, function() self:exit(container, code) end) end
end

--- Removes the container.
---@param container table
function Engine:forget(container)
  if not self.containers[container.Id] then return end
  self:exit(container, 137)
  self.containers[container.Id] = nil
  for i, one in ipairs(self.order) do
    if one == container then
      table.remove(self.order, i)
      break
    end
  end
  self:tell(container, "destroy")
end

-- ---- the engine itself --------------------------------------------------------------------------

--- Breaks every connection, or those for which `which` returns true.
---@param which? fun(connection: table): boolean
function Engine:reset_connections(which)
  local hit, left = {}, {}
  for _, connection in ipairs(self.connections) do table.insert((not which or which(connection)) and hit or left, connection) end
  self.connections = left
  for _, connection in ipairs(hit) do connection.reset() end
end

--- Ends the engine.
function Engine:crash()
  self.down, self.feeds = true, {}
  self:reset_connections()
end

--- Starts the engine again: it has lost its events. Without live-restore its containers have ended, as after a stop.
---@param with_containers boolean
function Engine:recover(with_containers)
  for _, container in ipairs({ table.unpack(self.order) }) do
    if container.removing then self:forget(container) end  -- it finishes the removal that had begun
    if not with_containers and container.State.Running then
      self:exit(container, select(2, programs.signal(container.program, container.Config.StopSignal)) or 137)
    end
  end
  self.down, self.log = false, {}
end

return M
