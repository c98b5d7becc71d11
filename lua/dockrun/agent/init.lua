--- The agent: holds what the tasks of one process share (engine, state, hooks, ports), and starts, stops and releases
--- allocations. waits.lua waits for them; jobs.lua has what commands and scripts call.
local allocs = require "dockrun.task.alloc"
local corePorts = require "dockrun.core.ports"
local directory = require "dockrun.store.directory"
local endpoint = require "dockrun.driver.endpoint"
local env = require "dockrun.task.env"
local events = require "dockrun.agent.emitter"
local fingerprint = require "dockrun.driver.fingerprint"
local hooks = require "dockrun.hooks"
local image = require "dockrun.driver.image"
local json = require "dockrun.core.json"
local jobs = require "dockrun.agent.jobs"
local lifecycle = require "dockrun.task.lifecycle"
local option_table = require "dockrun.options"
local owner = require "dockrun.store.owner"
local snapshot = require "dockrun.task.snapshot"
local runtime = require "dockrun.core.runtime"
local standard = require "dockrun.core.standard"
local store = require "dockrun.store"
local uv = require "luv"
local watch = require "dockrun.driver.events"
local tables = require "dockrun.util.tables"
local time = require "dockrun.util.time"

local M = {}

---@class Agent
---@field engine table
---@field options table<string, any>
---@field emitter Emitter
---@field state Store
---@field is_alive fun(owner: Owner): boolean
---@field hooks Hooks
---@field tasks Task[]
---@field allocs Alloc[]
---@field stops table<table, true>  fibers that stop a job because one of its hooks asked
---@field changes table<string, table>  fibers that deploy a job, by its name
---@field limitations table<string, table>  the engine's warnings about a job's tasks, by the job's name
---@field held table<string, HeldJob>  the jobs that this owner runs, by name
---@field leaving? boolean  it has released its tasks and starts no more
---@field random fun(): number  from [0, 1)
---@field on_transition? fun(task: Task, from: string, to: string, cause: string)
---@field on_log? fun(task: Task, is_reattached?: boolean)  follows a task's output, in a fiber of its own
---@field on_progress? fun(task: Task, current: integer, total: integer)
local Agent = {}
Agent.__index = Agent

--- Makes an agent for the engine that the options name: connects to it and starts to watch its events.
---@param options table<string, any>  see options.lua
---@param opts? { trace?: fun(call: table), emitter?: Emitter, random?: (fun(): number), state?: Store, readonly?: boolean,
---  is_alive?: fun(owner: Owner): boolean }  state: if it is open already; readonly: the caller changes nothing
---@return Agent? agent
---@return table? err  kind "unreachable", "invalid", those of store.open, …
function M.new(options, opts)
  opts = opts or {}
  local checked, wrong = option_table.check(options)
  if not checked then return nil, wrong end
  local state, problem = opts.state, nil
  if not state then state, problem = store.open(options.state_dir, { readonly = opts.readonly }) end
  if problem and not (opts.readonly and problem.kind == "missing") then return nil, problem end
  local engine, err = endpoint.connect(options, { trace = opts.trace })
  if not engine then return nil, err end
  local bind_ip = options["docker.bind_ip"]
  local self = setmetatable({
    engine = engine, options = options, emitter = opts.emitter or events.new(),
    hooks = hooks.new(options),
    state = state, is_alive = opts.is_alive or owner.is_alive, warned = {}, limitations = {}, changes = {}, stops = {},
    held = {},
    images = image.new(engine, options, state),
    watch = watch.new(engine, { interval = options["docker.watch_interval"], patience = options["docker.timeout"] }),
    tasks = {}, allocs = {}, publish_ip = bind_ip,
    random = opts.random or math.random,
    bind_ip = bind_ip ~= "" and bind_ip or "0.0.0.0",
    ports = corePorts.new { from = options["ports.from"], to = options["ports.to"] },
  }, Agent)
  if not opts.readonly then
    self.emitter:listen(function(event)
      local _, why = state:add_event(event)
      if why then self:warn(why) end
    end)
  end
  local ok
  if options.hooks ~= "" then
    ok, err = self.hooks:load(options.hooks)
    if not ok then return nil, err end
  end
  ok, err = self.watch:start()
  if not ok then return nil, err end
  self.watch.lost = function(why) self:tell(("lost the engine's events: %s; reconnecting"):format(why)) end
  self.watch.found = function() self:tell "receiving the engine's events again; checked every task" end
  self.attributes = fingerprint.attributes(engine, options)
  if not opts.readonly and self.attributes["driver.docker.userns"] == "true" then directory.let_through(options.state_dir) end
  local any = self.bind_ip == "0.0.0.0" or self.bind_ip == "::"
  self.ip = any and self.attributes["unique.network.ip-address"] or self.bind_ip
  self.node = { ["unique.name"] = self.attributes["unique.hostname"] }
  return self
end

--- Prints a warning that concerns no single task.
---@param message string
function Agent:tell(message)
  local tell = self.on_warning or function(text) io.stderr:write("dockrun: warn: ", standard.safe(text, "text"), "\n") end
  tell(message)
end

--- Prints an error that stops no task. The same one at most once a minute.
---@param err table
function Agent:warn(err)
  local message, now = tostring(err), runtime.now()
  if self.warned[message] and now - self.warned[message] < 60 then return end
  self.warned[message] = now
  self:tell(message)
end

--- Prints a warning of the engine about a task. Once, however many containers the task has.
---@param task { job: string, group: string, name: string }
---@param text string
function Agent:limitation(task, text)
  local message = ("task '%s.%s.%s': the engine warns: %s"):format(task.job, task.group, task.name, text)
  local known = self.limitations[task.job] or {}
  self.limitations[task.job] = known
  if known[message] then return end
  known[message], known[#known + 1] = true, message
  self:tell(message)
end

-- RFC 9562, version 4.
local function uuid()
  local bytes = { uv.random(16):byte(1, 16) }
  bytes[7] = bytes[7] & 0x0f | 0x40
  bytes[9] = bytes[9] & 0x3f | 0x80
  return (("%02x"):rep(16):format(table.unpack(bytes)):gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-"))
end

-- The images that a job is known to use. They count as in use until it has ended.
local function images_of(job)
  local list = json.array {}
  for _, group in ipairs(job.groups or {}) do
    for _, task in ipairs(group.count > 0 and group.tasks or {}) do list[#list + 1] = image.planned(task.config.image) end
  end
  return list
end

--- Records a job in the state, before anything of it is started.
---@param job table
---@param source? JobSource  the text of the job
---@return true? ok
---@return table? err
function Agent:record(job, source)
  local definition = { name = job.name, type = job.type, meta = job.meta, images = images_of(job) }
  return self.state:put_job {
    name = job.name, definition = tables.copy_data(definition), status = "running",
    endpoint = self.engine:endpoint(), source = source,
  }
end

-- What tasks may use of their agent.
---@return TaskEnv
local function task_env(self)
  local services = {
    warn = function(err) self:warn(err) end,
    limitation = function(task, text) self:limitation(task, text) end,
    stop_async = function(job, reason) self:stop_async(job, reason) end,
    alloc_ended = function(alloc) self:alloc_ended(alloc) end,
  }
  for _, key in ipairs { "engine", "options", "state", "emitter", "hooks", "images", "watch", "ports", "bind_ip", "attributes",
    "node", "random", "is_alive", "on_transition", "on_log", "on_progress" } do services[key] = self[key] end
  return services
end

local function new_task(self, alloc, job, group, spec, observations)
  local task = lifecycle.new(alloc.services, alloc, {
    job = job, group = group, resolved = spec, spec = spec, alloc = { id = alloc.id, index = alloc.index }, ip = self.ip,
    bind_ip = self.publish_ip, ports = {}, env = {}, meta = env.meta(job, group, spec), state_id = self.state.id,
  })
  local hook = spec.lifecycle and not spec.lifecycle.sidecar and spec.lifecycle.hook
  if observations and observations[spec.name] then
    task:recover(observations[spec.name])
  elseif observations and (hook == "prestart" or hook == "poststart") then
    task:skip()  -- it did its work when the allocation started
  end
  return task
end

-- In one transaction: the state has an allocation with all its tasks, or not at all.
local function write(self, alloc, observations)
  return self.state:transaction(function()
    self.state:remove_ended(alloc)
    self.state:set_job_status(alloc.job, "running")
    alloc:save()
    for _, task in ipairs(alloc.tasks) do
      local known = observations and observations[task.name]
      if not (known and known.row) then self.state:put_task(snapshot.of(task)) end
    end
  end)
end

--- Starts one allocation of a group: each of its tasks in a fiber of its own. Returns at once. Raises if the state cannot be
--- written; nothing is started then.
---@param job table    normalised, see job/load.lua; `record` has put it into the state
---@param group table
---@param index integer  from 0
---@param opts? { id?: string, observations?: table<string, Observation>, meta?: table }  an allocation that exists already, and
---  what observed.lua found of its tasks, by name: they are adopted
---@return Alloc
function Agent:start(job, group, index, opts)
  if self.leaving then error(runtime.error("cancelled", "cannot start: this process is releasing its tasks"), 0) end
  opts = opts or {}
  local meta = opts.meta or {}
  local alloc = allocs.new(task_env(self), {
    id = opts.id or uuid(), job = job.name, group = group.name, index = index, created = meta.created or time.now(),
  })
  alloc.stopping = meta.stopping
  for i, spec in ipairs(group.tasks) do alloc.tasks[i] = new_task(self, alloc, job, group, spec, opts.observations) end
  local ok, err = write(self, alloc, opts.observations)
  if not ok then error(err, 0) end
  table.move(alloc.tasks, 1, #alloc.tasks, #self.tasks + 1, self.tasks)
  self.allocs[#self.allocs + 1] = alloc
  for _, task in ipairs(alloc.tasks) do task.fiber = runtime.spawn_free(task.run, task) end
  if opts.observations then alloc:resume() end
  return alloc
end

--- Records that a job has ended, if all its tasks here have. A job that is being changed has not ended: between an
--- allocation and its successor no task of it runs.
---@param name string
function Agent:note_end(name)
  local count, failed = 0, false
  for _, task in ipairs(self.tasks) do
    if task.job == name then
      if not task:ended() then return end
      count, failed = count + 1, failed or task.state == "failed"
    end
  end
  if count == 0 or self.changes[name] then return end
  local _, err = self.state:set_job_status(name, failed and "failed" or "dead")
  if err then self:warn(err) end
end

--- An allocation's last task has ended.
---@param alloc Alloc
function Agent:alloc_ended(alloc)
  if alloc.replaced then
    local _, err = self.state:remove_alloc(alloc.id)
    if err then self:warn(err) end
  end
  self:note_end(alloc.job)
end

--- The engine's warnings about a job.
---@param job string
---@return string[]
function Agent:limitations_of(job)
  return json.array { table.unpack(self.limitations[job] or {}) }
end

--- This host, as plan.check needs it.
---@return { attr: table, node: table, ip: string, options: table<string, any> }
function Agent:host() return { attr = self.attributes, node = self.node, ip = self.ip, options = self.options } end

for name, method in pairs(require "dockrun.agent.waits") do Agent[name] = method end

-- For scripts and host programs; see jobs.lua. The methods below are for jobs.lua and apply.lua.
Agent.run, Agent.plan, Agent.stop, Agent.status = jobs.run, jobs.plan, jobs.stop, jobs.status

--- The allocation of this id that this process runs.
---@param id? string
---@return Alloc?
function Agent:alloc(id)
  for _, alloc in ipairs(self.allocs) do
    if alloc.id == id then return alloc end
  end
end

--- Forgets the tasks of a job that has ended.
---@param job string
function Agent:forget(job)
  local tasks, kept = {}, {}
  for _, task in ipairs(self.tasks) do
    if task.job ~= job then tasks[#tasks + 1] = task end
  end
  for _, alloc in ipairs(self.allocs) do
    if alloc.job ~= job then kept[#kept + 1] = alloc end
  end
  self.tasks, self.allocs = tasks, kept
end

--- Stops the allocations of a job (or all) as the job says, and waits until their tasks have ended.
---@param job? string
---@param reason? string
function Agent:stop_job(job, reason)
  for name, change in pairs(self.changes) do
    if not job or job == name then
      change:cancel(runtime.error("stopped", ("job '%s' was stopped before the update finished"):format(name)))
      change:join()
    end
  end
  local stopped, tasks = {}, {}
  for _, alloc in ipairs(self.allocs) do
    if not job or alloc.tasks[1] and alloc.tasks[1].job == job then
      stopped[#stopped + 1] = alloc
      table.move(alloc.tasks, 1, #alloc.tasks, #tasks + 1, tasks)
    end
  end
  local ok, err = self.state:transaction(function()
    for _, alloc in ipairs(stopped) do alloc:mark_stopping(reason) end
  end)
  if not ok then self:warn(err) end
  allocs.each(stopped, "stop", reason)
  for _, task in ipairs(tasks) do task.fiber:await() end
end

--- Stops a job without waiting: for a hook of a task of that job.
---@param job string
---@param reason? string
function Agent:stop_async(job, reason)
  local stop
  stop = runtime.spawn_free(function()
    local _ <close> = setmetatable({}, { __close = function() self.stops[stop] = nil end })
    local ok, err = pcall(self.stop_job, self, job, reason)
    local was_released = type(err) == "table" and err.kind == "cancelled"  -- the tasks were released meanwhile
    if not ok and not was_released then error(err, 0) end
  end)
  self.stops[stop] = true
end

--- Kills every task.
function Agent:kill()
  allocs.each(self.tasks, "kill")
  self:wait()
end

--- Stops watching every task; their containers keep running. Nothing starts after that.
function Agent:release()
  self.leaving = true
  for _, change in pairs(self.changes) do change:cancel "detached" end
  for _, task in ipairs(self.tasks) do task:detach() end
end

--- Releases what still runs, removes the images that this agent pulled and that nothing uses any more, and stops watching.
function Agent:close()
  if next(self.held) then jobs.leave(self) end
  for stop in pairs(self.stops) do pcall(stop.await, stop) end  -- it writes to the state
  if self.options["docker.cleanup.image"] then
    local settled, problem = self.images:settle(self.is_alive)
    if not settled then self:warn(problem) end
    for reference in pairs(self.images.pulled) do
      local user
      for _, task in ipairs(self.tasks) do
        local used = task.context.image and task.context.image.reference.full
        if used == reference then user = task end
      end
      local removed, err = self.images:remove(reference)
      if user and removed then user:emit("image_removed", { message = reference, image_id = user.context.image.id }) end
      if user and err then user:emit("failed", { message = ("cannot remove image %s: %s"):format(reference, err) }) end
    end
  end
  self.watch:stop()
  self.state:close()
end

return M
