-- A simulated world, by its seed: an engine, a registry, a host, the processes of dockrun on it, and the violations found.
-- The events of a world are in story.lua, its invariants in invariants.lua.
local engines = require "spec.sim.engine"
local events = require "spec.sim.events"
local faults = require "spec.sim.faults"
local invariants = require "spec.sim.invariants"
local jobs = require "spec.sim.jobs"
local json = require "dockrun.core.json"
local normalise = require "dockrun.job.normalise"
local diagnostics = require "dockrun.job.diagnostics"
local processes = require "spec.sim.process"
local rmtree = require("pl.dir").rmtree
local schedulers = require "spec.sim.scheduler"
local sqlite = require "spec.sim.sqlite"
local store = require "dockrun.store"
local uv = require "luv"

local M = {}

local BASE = ("/dev/shm/dockrun-sim-%d"):format(uv.os_getpid())

---@class World
---@field seed integer
---@field random fun(n?: integer): number
---@field sched Scheduler
---@field engine SimEngine
---@field faults Faults
---@field dir string                 files of this host
---@field options table<string, any> of every process of dockrun
---@field processes SimProcess[]
---@field sockets table<string, table>      the listeners, by path
---@field port_claims table<integer, SimProcess>
---@field made_at table<string, number>     the time at which a directory was made, by path
---@field jobs table<string, table>  by name: { raw, version, texts }
---@field violations string[]
---@field arrows table<string, integer>     transitions taken, "from>to" -> count
local World = {}
World.__index = World

-- ---- the host's files ---------------------------------------------------------------------------

-- Removes all files of a world but the database, which is emptied instead: making one takes longest.
local function tidy(dir)
  for _, name in ipairs { "alloc", "jobs" } do
    local path = ("%s/state/%s"):format(dir, name)
    if uv.fs_stat(path) then rmtree(path) end
  end
  sqlite.empty(dir .. "/state/state.db")
end

local function make(dir)
  assert(uv.fs_mkdir(BASE, 448))
  assert(uv.fs_mkdir(dir, 448))
  assert(store.open(dir .. "/state")):close()
end

--- Removes the files of all worlds.
function M.finish()
  sqlite.finish()
  if uv.fs_stat(BASE) then rmtree(BASE) end
end

-- ---- birth --------------------------------------------------------------------------------------

local function stock(engine)
  local function image(name, checked) return { Id = ("sha256:%s"):format(name:gsub("%W", "0"):rep(64):sub(1, 64)), checked = checked } end
  engine.images[jobs.here], engine.images[jobs.checked_here] = image "here1", image("here2", true)
  for i, ref in ipairs(jobs.registry) do engine.registry[ref] = image("app" .. i, ref:find "checked" ~= nil) end
end

---@param seed integer
---@param opts? { trace?: fun(text: string), severity?: number }
---@return World
function M.new(seed, opts)
  opts = opts or {}
  math.randomseed(seed)
  local random = math.random
  local self = setmetatable({
    seed = seed, random = random, sched = schedulers.new(random), dir = BASE .. "/world", trace = opts.trace,
    processes = {}, sockets = {}, port_claims = {}, jobs = {}, violations = {}, arrows = {}, made_at = {}, pids = 100,
    before = { containers = {}, images = {} },  -- not dockrun's
  }, World)
  if uv.fs_stat(self.dir) then tidy(self.dir) else make(self.dir) end
  self.engine = engines.new(self.sched)
  stock(self.engine)
  self.faults = faults.new(random, opts.severity or 0)
  self.options = { ["docker.endpoint"] = "unix:///sim.sock", state_dir = self.dir .. "/state", hook_timeout = 5 }
  self.invariants = invariants.new(self)
  self.sched.after_step = function() self.invariants:after_step() end
  self.sched.on_failure = function(fiber) self.invariants:on_failure(fiber) end
  if self.trace then self.sched.trace = function(text) self:note("%s", text) end end
  return self
end

-- ---- output -------------------------------------------------------------------------------------

--- Adds a line to the trace.
---@param format string
---@param ... any
function World:note(format, ...)
  if not self.trace then return end
  local values = table.pack(...)
  for i = 1, values.n do values[i] = tostring(values[i]) end
  local current = self.sched.current
  self.trace(("%10.4f %-16s %s"):format(self.sched.time, current and current.process or "", format:format(table.unpack(values))))
end

--- Notes that an invariant is broken.
---@param format string
---@param ... any
function World:violate(format, ...)
  local text = format:format(...)
  self:note("VIOLATION: %s", text)
  table.insert(self.violations, ("%.4f s: %s"):format(self.sched.time, text))
end

--- Takes a process's output.
---@param process SimProcess
---@param name "stdout"|"stderr"
---@param text string
function World:output(process, name, text)
  if name == "stderr" then
    self:note("%s stderr: %s", process, text:gsub("%s+$", ""))
  else
    local event = json.decode(text)
    if event and event.event then events.told(self, process, event) end
  end
end

-- ---- jobs ---------------------------------------------------------------------------------------

-- A copy for one process: only functions are shared.
local function copy(value)
  if type(value) ~= "table" then return value end
  local made = {}
  for key, item in next, value do made[key] = copy(item) end
  return setmetatable(made, getmetatable(value))
end

local function normal(raw, text)
  local found = diagnostics.new(text)
  local job = normalise.job(raw, found)
  local err = found:error()
  if err then error(("the simulation made a bad job: %s"):format(err)) end
  return job
end

--- The job of a text, "name#version", as dockrun.job.load gives it to a process.
---@param text string
---@return table job
function World:load_job(text)
  local name, version = text:match "^(.+)#(%d+)$"
  local job = self.jobs[name]
  job.normal = job.normal or {}
  job.normal[version] = job.normal[version] or normal(job.texts[tonumber(version)], text)
  return copy(job.normal[version])
end

--- The text of the job that runs next.
---@param name string
---@return string
function World:text_of(name) return ("%s#%d"):format(name, #self.jobs[name].texts) end

-- ---- processes ----------------------------------------------------------------------------------

--- Starts `dockrun COMMAND`.
---@param command string
---@param args table     as its parser gives them
---@param opts? { kill_at?: integer, options?: table<string, any> }
---@return SimProcess
function World:dockrun(command, args, opts)
  opts = opts or {}
  local label = args.job and ("%s %s"):format(command, args.job) or command
  local process = processes.start(self, label, function(process)
    local options = process:require("dockrun").options
    for name, value in pairs(self.options) do options[name] = value end
    for name, value in pairs(opts.options or {}) do options[name] = value end
    return process:require("dockrun.cli." .. command).run(args)
  end, opts.kill_at)
  process.command, process.args, process.job = command, args, (args.job or ""):match "^[^#]*"
  return process
end

--- All live processes.
---@return SimProcess[]
function World:alive()
  local list = {}
  for _, process in ipairs(self.processes) do
    if not process.dead then list[#list + 1] = process end
  end
  return list
end

function World:main_ended(process) self.invariants:main_ended(process) end

function World:on_transition(process, task, from, to, cause)
  local arrow = from .. ">" .. to
  self.arrows[arrow] = (self.arrows[arrow] or 0) + 1
  self:note("%s %s.%s[%d].%s %s (%s)", process, task.job, task.group, task.context.alloc.index, task.name, arrow, cause)
  self.invariants:on_transition(process, task, from, to, cause)
end

return M
