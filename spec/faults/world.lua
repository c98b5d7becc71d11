-- The target of a fault, and the checks after it: one job, on an engine, with a state directory of its own.
--
--   local w <close> = world.new(endpoint)
--   w.proxy:arm { … }
--   local child = w:start { "run", "--json", w.job_file }
--   w:leftovers()         an empty list if nothing leaked
local dockrun = require "dockrun"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local proxy = require "spec.faults.proxy"
local store = require "dockrun.store"
local uv = require "luv"

local M = {}

---@class FaultWorld
---@field name string       of the job
---@field proxy Proxy       the engine's endpoint for dockrun
---@field engine table      a connection to the engine itself
---@field state_dir string
---@field job_file string
---@field exit_code integer that the task ends with
---@field history table[]   the engine's events of the job's containers: {action, id, attributes}
local World = {}
World.__index = World

local PATIENCE = 240 -- seconds, for each step that a fault may delay

-- One stream of the engine's events, until it breaks; earlier events arrive again, and are recognised by their time.
local function follow(self, seen)
  local events <close> = self.engine:events {
    since = self.since, filters = {
      type = { "container" }, event = { "create", "start", "die", "destroy" }, label = { "dockrun.job=" .. self.name },
    },
  }
  if not events then return end
  self.listening:push(true)
  while true do
    local event, text = events:read()
    if not event then return end
    local at = text:match '"timeNano":(%d+)'
    if not seen[at .. event.Action] then
      seen[at .. event.Action] = true
      self.since = ("%s.%s"):format(at:match "^(%d+)(%d%d%d%d%d%d%d%d%d)$")
      self.history[#self.history + 1] = { action = event.Action, id = event.Actor.ID, attributes = event.Actor.Attributes }
    end
  end
end

---@param endpoint string
---@param opts? { command?: string, exit_code?: integer, task?: string, attempts?: integer, delay?: number,
---  state_dir?: string }  state_dir: an existing directory, which is removed with the world
---@return FaultWorld
function M.new(endpoint, opts)
  opts = opts or {}
  local self = setmetatable({
    name = jobs.unique "fault", proxy = proxy.start(endpoint), engine = assert(dockrun.connect { endpoint = endpoint }),
    state_dir = opts.state_dir or assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-fault-XXXXXX")), exit_code = opts.exit_code or 0,
    history = {}, listening = dockrun.queue(), children = {},
  }, World)
  self.job_file, self.file = jobs.write(jobs.text {
    name = self.name, image = "busybox:1", command = opts.command or ("echo hello; exit %d"):format(self.exit_code),
    resources = "memory = 32, network = { dynamic_ports = { 80 } }",
    task = opts.task, restart = ("attempts = %d, delay = %g, mode = 'fail'"):format(opts.attempts or 3, opts.delay or 0.05),
  })
  self.listener = dockrun.spawn(function()
    local seen = {}
    while true do
      follow(self, seen)
      dockrun.sleep(0.1)
    end
  end)
  self.listening:pop(120)
  return self
end

--- Starts dockrun.
---@param words string[]
---@param opts? ProcessOptions  and `prefix`: words before its own, for a program that runs it
---@return Child
function World:start(words, opts)
  opts = opts or {}
  opts.timeout = PATIENCE
  local args = table.move(opts.prefix or {}, 1, #(opts.prefix or {}), 1, {})
  for _, list in ipairs {
    { "--endpoint", self.proxy.endpoint, "--state-dir", self.state_dir, "--set", "docker.timeout=5" }, words,
  } do
    table.move(list, 1, #list, #args + 1, args)
  end
  local child = process.start(args, opts)
  self.children[#self.children + 1] = child
  return child
end

--- Runs dockrun to its end.
---@return ProcessResult
function World:run(words, opts)
  local child <close> = self:start(words, opts)
  return child:wait()
end

--- The events that `run --json` has printed.
---@param text string  its stdout
---@return table[]
---@return table<string, table[]> by  name
function M.events(text)
  local list, by = {}, setmetatable({}, { __index = function() return {} end })
  for line in text:gmatch "([^\n]+)\n" do
    local event = assert(dockrun.json.decode(line))
    list[#list + 1] = event
    by[event.event] = rawget(by, event.event) or {}
    table.insert(by[event.event], event)
  end
  return list, by
end

function World:containers() return jobs.containers(self.engine, self.name) end

-- Waits until the history holds the end of every container that is gone.
local function settle(self)
  eventually("the end of every container that is gone was told", function()
    local open = {}
    for _, event in ipairs(self.history) do
      if event.action == "create" then open[event.id] = true end
      if event.action == "destroy" then open[event.id] = nil end
    end
    for _, container in ipairs(self:containers()) do open[container.Id] = nil end
    return not next(open)
  end)
end

--- The number of times that the engine did an action for the job.
---@param action string
---@return integer
function World:count(action)
  settle(self)
  local count = 0
  for _, event in ipairs(self.history) do count = count + (event.action == action and 1 or 0) end
  return count
end

--- The largest number of the job's containers that ran at the same time.
---@return integer
function World:most_at_once()
  settle(self)
  local running, now, most = {}, 0, 0
  for _, event in ipairs(self.history) do
    if event.action == "start" and not running[event.id] then
      running[event.id], now = true, now + 1
      most = math.max(most, now)
    elseif event.action == "die" and running[event.id] then
      running[event.id], now = nil, now - 1
    end
  end
  return most
end

local function directories(self)
  local found = {}
  local entries = uv.fs_scandir(self.state_dir .. "/alloc")
  while entries do
    local name = uv.fs_scandir_next(entries)
    if not name then break end
    found[#found + 1] = name
  end
  return found
end

-- Every host port in the job's events.
local function ports(events)
  local found = {}
  for _, event in ipairs(events) do
    for _, port in ipairs(event.ports or {}) do found[port.host_port] = true end
  end
  return found
end

--- True if every task of the job has ended according to the state.
---@return boolean
function World:has_ended()
  local state <close> = store.open(self.state_dir, { readonly = true })
  local tasks = state and state:tasks() or {}
  for _, task in ipairs(tasks) do
    if task.state ~= "dead" and task.state ~= "failed" then return false end
  end
  return #tasks > 0
end

-- Checks that the state has no work left: no intent is open, every task has ended, and no port is leased.
local function check_state(self, report)
  local state <close>, err = store.open(self.state_dir, { readonly = true })
  if not state then
    if err.kind ~= "missing" then report("the state: %s", err) end
    return
  end
  if state.db:value "PRAGMA integrity_check" ~= "ok" then report "the state is damaged" end
  for _, intent in ipairs(assert(state:intents())) do report("the state: %s of %s is not done", intent.action, intent.task) end
  for _, lease in ipairs(assert(state:leases())) do report("the state: port %d is leased", lease.port) end
  for _, task in ipairs(assert(state:tasks())) do
    if task.state ~= "dead" and task.state ~= "failed" then report("the state: the task is %s", task.state) end
  end
  for _, job in ipairs(assert(state:jobs())) do
    if job.status == "running" and #assert(state:tasks()) > 0 then report "the state: the job is running" end
  end
end

--- Every leftover after a run, as sentences.
---@param events? table[]  of all runs, for their ports
---@return string[]
function World:leftovers(events)
  local found = {}
  local function report(...) found[#found + 1] = string.format(...) end
  for _, container in ipairs(self:containers()) do report("container %s is left, %s", container.Names[1], container.State) end
  for _, name in ipairs(directories(self)) do report("directory alloc/%s is left", name) end
  check_state(self, report)
  for port in pairs(ports(events or {})) do
    local free, err = dockrun.ports.probe("0.0.0.0", port)
    if not free then report("port %d is not free: %s", port, err) end
  end
  return found
end

--- Stops everything that it started. May be called twice.
function World:close()
  if self.closed then return end
  self.closed = true
  for _, child in ipairs(self.children) do child:close() end
  self.listener:cancel()
  local _ <close> = self.proxy
  for _, container in ipairs(self:containers()) do self.engine:container_remove(container.Id, { force = true, v = true }) end
  pl_dir.rmtree(self.state_dir)
  local _ <close> = self.file
end

World.__close = World.close

return M
