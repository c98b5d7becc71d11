-- What the tasks of one process share, and the way of a job: submitted, watched, stopped.
local allocs = require "dockrun.task.alloc"
local corePorts = require "dockrun.core.ports"
local endpoint = require "dockrun.driver.endpoint"
local env = require "dockrun.task.env"
local events = require "dockrun.events"
local docker = require "dockrun.core.docker"
local fingerprint = require "dockrun.driver.fingerprint"
local hooks = require "dockrun.hooks"
local image = require "dockrun.driver.image"
local lifecycle = require "dockrun.task.lifecycle"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"
local watch = require "dockrun.driver.watch"

local M = {}

---@class Agent
---@field engine table
---@field options table<string, any>
---@field emitter Emitter
---@field hooks Hooks
---@field tasks Task[]
---@field allocs Alloc[]
---@field random fun(): number  from [0, 1)
---@field on_transition? fun(task: Task, from: string, to: string, cause: string)
---@field on_log? fun(task: Task)  follows a task's output in a coroutine of its own
---@field on_progress? fun(task: Task, current: integer, total: integer)
local Agent = {}
Agent.__index = Agent

--- An agent for the engine that the options name. Reaches it, and begins to watch.
---@param options table<string, any>  see options.lua
---@param opts? { trace?: fun(call: table), emitter?: Emitter, random?: fun(): number }
---@return Agent? agent
---@return table? err  kind "unreachable", "invalid", …
function M.new(options, opts)
  opts = opts or {}
  local where, err = endpoint.resolve(options)
  if not where then return nil, err end
  local engine
  engine, err = docker.connect { endpoint = where.endpoint, tls = where.tls, timeout = options["docker.timeout"], trace = opts.trace }
  if not engine then return nil, err end
  local bind_ip = options["docker.bind_ip"]
  local self = setmetatable({
    engine = engine, options = options, emitter = opts.emitter or events.new(),
    hooks = hooks.new(options.hook_timeout, options.hook_instructions),
    images = image.new(engine, options), watch = watch.new(engine, options["docker.watch_interval"]),
    tasks = {}, allocs = {}, publish_ip = bind_ip,
    random = opts.random or math.random,
    bind_ip = bind_ip ~= "" and bind_ip or "0.0.0.0",
    ports = corePorts.new { from = options["ports.from"], to = options["ports.to"] },
  }, Agent)
  local ok
  if options.hooks ~= "" then
    ok, err = self.hooks:load(options.hooks)
    if not ok then return nil, err end
  end
  ok, err = self.watch:start()
  if not ok then return nil, err end
  self.attributes = fingerprint.attributes(engine, options)
  local any = self.bind_ip == "0.0.0.0" or self.bind_ip == "::"
  self.ip = any and self.attributes["unique.network.ip-address"] or self.bind_ip
  self.node = { ["unique.name"] = self.attributes["unique.hostname"] }
  return self
end

-- RFC 9562, version 4.
local function uuid()
  local bytes = { uv.random(16):byte(1, 16) }
  bytes[7] = bytes[7] & 0x0f | 0x40
  bytes[9] = bytes[9] & 0x3f | 0x80
  return (("%02x"):rep(16):format(table.unpack(bytes)):gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-"))
end

--- Starts one allocation of a group: each of its tasks in a coroutine of its own. Returns at once.
---@param job table    normalised, see job/load.lua
---@param group table
---@param index integer  from 0
---@param opts? { id?: string, running?: table<string, TaskRecord> }  an allocation that is there already, and its tasks
---  that run: they are watched from here on, not started
---@return Alloc
function Agent:start(job, group, index, opts)
  opts = opts or {}
  local alloc = allocs.new(opts.id or uuid(), index)
  for _, spec in ipairs(group.tasks) do
    local task = lifecycle.new(self, alloc, {
      job = job, group = group, task = spec, spec = spec, alloc = { id = alloc.id, index = index }, ip = self.ip,
      bind_ip = self.publish_ip, ports = {}, env = {}, meta = env.meta(job, group, spec),
    })
    local record = opts.running and opts.running[spec.name]
    local hook = spec.lifecycle and not spec.lifecycle.sidecar and spec.lifecycle.hook
    if record then
      task:adopt(record)
    elseif opts.running and (hook == "prestart" or hook == "poststart") then
      task:skip()  -- it did its work when the others began
    end
    alloc.tasks[#alloc.tasks + 1] = task
    self.tasks[#self.tasks + 1] = task
  end
  self.allocs[#self.allocs + 1] = alloc
  for _, task in ipairs(alloc.tasks) do task.coroutine = runtime.spawn(task.run, task) end
  return alloc
end

--- What this host is, as plan.check asks.
---@return { attr: table, node: table, ip: string, options: table<string, any> }
function Agent:host() return { attr = self.attributes, node = self.node, ip = self.ip, options = self.options } end

--- Starts every allocation of a job. Returns at once.
---@param job table  normalised, see job/load.lua
function Agent:submit(job)
  for _, group in ipairs(job.groups) do
    for index = 0, group.count - 1 do self:start(job, group, index) end
  end
end

-- Until every task has ended, those too that were started meanwhile.
local function await_all(self)
  local i = 1
  while self.tasks[i] do
    self.tasks[i].coroutine:await()
    i = i + 1
  end
end

--- Waits until every task has ended.
---@return boolean ok  no task failed
function Agent:wait()
  await_all(self)
  for _, task in ipairs(self.tasks) do
    if task.state == "failed" then return false end
  end
  return true
end

--- Stops the allocations of a job (or all) as it wants, and waits for the end of their tasks.
---@param job? string
---@param reason? string
function Agent:stop_job(job, reason)
  local those, tasks = {}, {}
  for _, alloc in ipairs(self.allocs) do
    if not job or alloc.tasks[1] and alloc.tasks[1].job == job then
      those[#those + 1] = alloc
      table.move(alloc.tasks, 1, #alloc.tasks, #tasks + 1, tasks)
    end
  end
  allocs.each(those, "stop", reason)
  for _, task in ipairs(tasks) do task.coroutine:await() end
end

--- Stops everything.
---@param reason? string
function Agent:stop(reason) self:stop_job(nil, reason) end

--- Ends every task at once.
function Agent:kill()
  allocs.each(self.tasks, "kill")
  await_all(self)
end

--- Waits until every task runs, or has ended, then leaves the containers to themselves. Poststop tasks never run then:
--- nobody is there to see their turn.
---@return boolean ok  none has failed
function Agent:detach()
  for _, task in ipairs(self.tasks) do
    local last = task.context.spec.lifecycle and task.context.spec.lifecycle.hook == "poststop"
    while not (last or task.watching or task:ended()) do runtime.sleep(0.02) end
  end
  local ok = true
  for _, task in ipairs(self.tasks) do
    ok = ok and task.state ~= "failed"
    task:detach()
  end
  return ok
end

--- Removes the images that this agent pulled and that nothing uses any more, and ends the watch.
function Agent:close()
  if self.options["docker.cleanup.image"] then
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
end

return M
