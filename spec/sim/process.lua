-- A process of the simulation: dockrun's own Lua files, each loaded anew, over a simulated core and a simulated host. It
-- can be killed at every step, at every call of the engine and at every statement that it sends to the database.
local client = require "spec.sim.client"
local hosts = require "spec.sim.host"
local real_runtime = require "dockrun.core.runtime"
local runtimes = require "spec.sim.runtime"
local sqlite = require "spec.sim.sqlite"

local M = {}

---@class SimProcess
---@field world World
---@field name string        for people: "run cache", "gc"
---@field pid integer
---@field start integer      as in /proc
---@field dead boolean       it has ended; if it was killed, nothing of it was closed
---@field fibers table<integer, SimFiber>  live ones, by number
---@field points integer     number of points until now at which it could have been killed
---@field kill_at? integer   the point at which it is killed
---@field command string     of dockrun, with its `args`
---@field job string          its job, "" without one
---@field began number        and `ended_at`
---@field killed? boolean
---@field code? integer      its exit code
---@field agent? table       of the policy, if it made one
local Process = {}
Process.__index = Process

-- ---- the environment that the policy's files share ----------------------------------------------

local current ---@type fun(): SimProcess  the process whose code runs

-- `pairs` in an order that is the same in every run of a seed: numbers, then strings, then the rest in any order.
local function sorted_pairs(value)
  local meta = getmetatable(value)
  if meta == "read-only" or type(meta) == "table" and meta.__pairs then return pairs(value) end
  local first = next(value)
  if first == nil or next(value, first) == nil then return next, value, nil end
  local numbers, keys, others = {}, {}, nil
  for key in next, value do
    local kind = type(key)
    if kind == "string" then
      keys[#keys + 1] = key
    elseif kind == "number" then
      numbers[#numbers + 1] = key
    else
      others = others or {}
      others[#others + 1] = key
    end
  end
  table.sort(keys)
  if #numbers > 0 then
    table.sort(numbers)
    keys = table.move(keys, 1, #keys, #numbers + 1, numbers)
  end
  if others then table.move(others, 1, #others, #keys + 1, keys) end
  local i = 0
  return function()
    repeat
      i = i + 1
      local key = keys[i]
      if key == nil then return nil end
      local item = value[key]
      if item ~= nil then return key, item end
    until false
  end
end

local function of_host(name)
  return setmetatable({}, { __index = function(_, key) return current().host[name][key] end })
end

local environment = setmetatable({
  require = function(name) return current():require(name) end,
  pairs = sorted_pairs, io = of_host "io", os = of_host "os", print = function() end,
}, { __index = _G })

local chunks = {}  -- by module, compiled once: each call of a chunk makes its own locals

local function chunk_of(name)
  if not chunks[name] then
    local path = assert(package.searchpath(name, package.path))
    chunks[name] = assert(loadfile(path, "t", environment))
  end
  return chunks[name]
end

-- ---- modules ------------------------------------------------------------------------------------

-- Modules that only compute and keep no state: loaded once for all processes.
local shared = {}

---@param name string
---@return any
function Process:require(name)
  local loaded = self.loaded[name]
  if loaded ~= nil then return loaded end
  if name:find "^dockrun%.job%." then
    shared[name] = shared[name] or chunk_of(name)(name)
    loaded = shared[name]
  elseif name:find "^dockrun" and not name:find "^dockrun%.core" then
    loaded = chunk_of(name)(name)
  else
    loaded = require(name)
  end
  if loaded == nil then loaded = true end
  self.loaded[name] = loaded
  return loaded
end

-- Modules that replace the core's, and the reader of job files.
local function simulated(self)
  local world = self.world
  local runtime = runtimes.new(world.sched, self)
  return {
    ["dockrun.core.runtime"] = runtime,
    ["dockrun.core.queue"] = runtimes.queue(world.sched),
    ["dockrun.core.docker"] = client.new(world.sched, world.engine, world.faults, self),
    ["dockrun.core.ports"] = self.host.ports,
    ["dockrun.core.peer"] = self.host.peer,
    ["dockrun.core.standard"] = self.host.standard,
    ["dockrun.core.cgroup"] = self.host.cgroup,
    ["dockrun.core.http"] = self.host.http,
    ["dockrun.core.sqlite"] = sqlite.new(self),
    ["luv"] = self.host.uv,
    ["dockrun.job.load"] = {
      read = function(path) return { format = "lua", name = path, text = path } end,
      source = function(source) return world:load_job(source.text) end,
    },
  }
end

-- Lets the world check the transitions of the agent's tasks.
local function watch_agents(self)
  local agents = self:require "dockrun.agent"
  local new = agents.new
  agents.new = function(...)
    local agent, err = new(...)
    if agent then
      self.agent = agent
      agent.on_transition = function(...) self.world:on_transition(self, ...) end
    end
    return agent, err
  end
end

-- ---- life and death -----------------------------------------------------------------------------

--- Starts a process that runs main(process), which may return an exit code.
---@param world World
---@param name string
---@param main fun(process: SimProcess): integer?, table?
---@param kill_at? integer
---@return SimProcess
function M.start(world, name, main, kill_at)
  current = function() return world.sched.current.process end
  world.pids = world.pids + 1
  local self = setmetatable({
    world = world, name = name, pid = world.pids, start = math.floor(world.sched.time * 100) + 1, dead = false, fibers = {}, points = 0,
    kill_at = kill_at, databases = {}, pipes = {},
  }, Process)
  self.host, self.began = hosts.new(world, self), world.sched.time
  self.loaded = simulated(self)
  table.insert(world.processes, self)
  world:note("%s starts", self)
  self.main = world.sched:spawn(self, function()
    watch_agents(self)
    local code, err = main(self)
    if not code and err then world:note("%s says: %s", self, err) end
    self.code, self.err = code, err
  end)
  world.sched:spawn(nil, function() self:see_out() end)
  return self
end

-- Ends a program as core/runtime/runtime.c does: once its script has ended, its other fibers are cancelled and awaited.
function Process:see_out()
  pcall(self.main.await, self.main)
  if self.dead then return end
  self.world:main_ended(self)
  local numbers = {}
  for number in pairs(self.fibers) do numbers[#numbers + 1] = number end
  table.sort(numbers)
  for _, number in ipairs(numbers) do self.fibers[number]:cancel() end
  while next(self.fibers) and not self.given_up do
    self.world.sched:wait(0.01)
    if self.dead then return end
  end
  self:leave()
  self.world:note("%s ends with %s", self, self.code)
end

-- Does the kernel's part when a process ends, in any way.
local function vanish(self)
  if self.dead then return end
  self.dead, self.ended_at = true, self.world.sched.time
  for _, database in ipairs(self.databases) do database:close() end
  for _, pipe in ipairs(self.pipes) do pipe:vanish() end
  local world = self.world
  world.engine:reset_connections(function(connection)
    if connection.process ~= self then return false end
    -- Data that was not sent yet is sometimes lost.
    if connection.request and world.random(2) == 1 then connection.request.action = nil end
    return true
  end)
  for port, claim in pairs(world.port_claims) do
    if claim == self then world.port_claims[port] = nil end
  end
end

-- Ends the process in order: everything that it holds is closed.
function Process:leave()
  for _, pipe in ipairs(self.pipes) do pipe:close() end
  vanish(self)
end

--- Kills the process, as SIGKILL does.
function Process:kill()
  if self.dead then return end
  self.world:note("%s is killed", self)
  self.killed = true
  vanish(self)
end

--- Asks the process to end, as Ctrl-C does.
---@param signal? string
function Process:interrupt(signal)
  if self.dead then return end
  self.world:note("%s gets %s", self, signal or "SIGINT")
  if self.main:ended() then
    self.given_up = true
  else
    self.main:cancel(real_runtime.error("cancelled", "interrupted by " .. (signal or "SIGINT"), { signal = signal or "SIGINT" }))
  end
end

--- A point at which the process can be killed from outside.
function Process:tick()
  self.points = self.points + 1
  if self.points == self.kill_at then self:kill() end
end

--- A point within the process's own code, which ends there if the process is killed.
function Process:point()
  self:tick()
  while self.dead do coroutine.yield() end
end

function Process:__tostring() return ("[%d %s]"):format(self.pid, self.name) end

return M
