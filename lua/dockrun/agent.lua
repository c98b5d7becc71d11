-- What the tasks of one process share, and the way of a job: submitted, watched, stopped.
local corePorts = require "dockrun.core.ports"
local endpoint = require "dockrun.driver.endpoint"
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
---@field on_log? fun(task: Task)  follows a task's output in a coroutine of its own
---@field on_progress? fun(task: Task, current: integer, total: integer)
local Agent = {}
Agent.__index = Agent

--- An agent for the engine that the options name. Reaches it, and begins to watch.
---@param options table<string, any>  see options.lua
---@param opts? { trace?: fun(call: table), emitter?: Emitter }
---@return Agent? agent
---@return table? err  kind "unreachable", "invalid", …
function M.new(options, opts)
  opts = opts or {}
  local where, err = endpoint.resolve(options)
  if not where then return nil, err end
  local engine
  engine, err = docker.connect { endpoint = where.endpoint, tls = where.tls, trace = opts.trace }
  if not engine then return nil, err end
  local bind_ip = options["docker.bind_ip"]
  local self = setmetatable({
    engine = engine, options = options, emitter = opts.emitter or events.new(), hooks = hooks.new(options.hook_timeout),
    images = image.new(engine, options), watch = watch.new(engine), tasks = {}, publish_ip = bind_ip,
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
  self.attributes = fingerprint.attributes(engine)
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

local function merged_meta(...)
  local meta = {}
  for _, level in ipairs { ... } do
    for key, value in pairs(level.meta or {}) do meta[key] = value end
  end
  return meta
end

--- Starts every task of a job, each in a coroutine of its own. Returns at once.
---@param job table  normalised, see job/load.lua
function Agent:submit(job)
  for _, group in ipairs(job.groups) do
    for index = 0, group.count - 1 do
      local alloc = { id = uuid(), index = index }
      for _, task in ipairs(group.tasks) do
        local one = lifecycle.new(self, {
          job = job, group = group, task = task, spec = task, alloc = alloc, ip = self.ip, bind_ip = self.publish_ip,
          ports = {}, env = {}, meta = merged_meta(job, group, task),
        })
        self.tasks[#self.tasks + 1] = one
        one.coroutine = runtime.spawn(one.run, one)
      end
    end
  end
end

--- Waits until every task has ended.
---@return boolean ok  no task failed
function Agent:wait()
  for _, task in ipairs(self.tasks) do task.coroutine:await() end
  for _, task in ipairs(self.tasks) do
    if task.state == "failed" then return false end
  end
  return true
end

-- Waits for the end of a coroutine, however it ends. A cancel of the one who waits is raised.
local function join(coroutine)
  local ok, err = pcall(coroutine.await, coroutine)
  local status = coroutine:status()
  if not ok and status ~= "done" and status ~= "failed" then error(err, 0) end
end

-- Something for each task, all at the same time; then the end of all tasks.
local function end_all(tasks, method, ...)
  local pending = {}
  for _, task in ipairs(tasks) do pending[#pending + 1] = runtime.spawn(task[method], task, ...) end
  for _, one in ipairs(pending) do join(one) end
  for _, task in ipairs(tasks) do join(task.coroutine) end
end

--- Stops every task as its job wants, and waits for the end of all.
---@param reason? string
function Agent:stop(reason)
  end_all(self.tasks, "stop", reason)
end

--- Ends every task at once.
function Agent:kill()
  end_all(self.tasks, "kill")
end

--- Waits until every task runs or has ended, then leaves the containers to themselves.
---@return boolean ok  every task runs
function Agent:detach()
  local ok = true
  for _, task in ipairs(self.tasks) do
    while task.state == "pending" and task.coroutine:status() ~= "done" do runtime.sleep(0.02) end
    ok = ok and task.state == "running"
  end
  for _, task in ipairs(self.tasks) do
    if task.state == "running" then
      task.detached = true
      task.coroutine:cancel "detached"
    end
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
