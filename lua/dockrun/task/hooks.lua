--- Runs the hooks of a task, and the parts of its work that a stop can cancel: methods of a Task, see lifecycle.lua.
local env = require "dockrun.task.env"
local hooks = require "dockrun.hooks"
local image = require "dockrun.driver.image"
local internal = require "dockrun.util.internal"
local runtime = require "dockrun.core.runtime"
local tables = require "dockrun.util.tables"

---@class Task
local M = {}

--- The task as its hooks see it.
function M:view()
  local context = self.context
  local task = context.resolved or context.spec
  return hooks.read_only {
    job = self.job, group = self.group, name = self.name, config = task.config, resources = task.resources,
    alloc = { id = context.alloc.id, index = context.alloc.index }, env = context.env,
    meta = env.meta(context.job, context.group, task),
    ports = context.ports, ip = context.ip, state = self:status(), phase = self.state, container_id = self.container_id,
    image = context.image and context.image.reference.full, result = self.result, restarts = self.restarts.total,
    endpoint = self.services.engine:endpoint(),
    stop = function(reason) self.services.stop_async(self.job, reason) end,
  }
end

--- Runs fn in a fiber of its own that a stop cancels. The stop cancels only this call, not what follows it.
---@param fn function
---@return any ...  of fn's
function M:cancellable(fn, ...)
  if self.stopping then error(self.stopping, 0) end
  local outer = self.current
  local fiber <close> = runtime.spawn(internal.call, fn, ...)
  self.current = outer or fiber
  local answer = table.pack(pcall(fiber.await, fiber))
  self.current = outer
  if not answer[1] then error(answer[2], 0) end
  return table.unpack(answer, 2, answer.n)
end

--- Cancels what runs under `cancellable`.
function M:cancel_current()
  if self.current then self.current:cancel(self.stopping) end
end

-- The hooks of its job, outermost first.
local function own_hooks(context)
  return { { "job", context.job.hooks or {} }, { "group", context.group.hooks or {} }, { "task", context.spec.hooks or {} } }
end

--- Runs the hooks of a transition in this fiber.
---@param name string
---@param subject? any
---@return true? ok
---@return any err
function M:run_hook(name, subject)
  local function report(err) self:emit("hook_failed", { message = tostring(err) }) end
  return self.services.hooks:run(name, own_hooks(self.context), self:view(), subject, report)
end

--- A copy of the spec, for its first hooks to change; nil if it has no such hook.
function M:draft()
  local own, all = own_hooks(self.context), self.services.hooks
  if all:has("received", own) or all:has("setup", own) then return tables.copy(self.context.spec) end
end

--- The image that it will use; nil if hooks or interpolation may still change it.
---@return string?
function M:planned_image()
  local own, all = own_hooks(self.context), self.services.hooks
  for _, name in ipairs { "received", "setup", "pull" } do
    if all:has(name, own) then return nil end
  end
  return image.planned(self.context.resolved.config.image)
end

--- Runs the hooks of a transition. Raises if one fails or vetoes.
---@param name string
---@param subject? any
function M:hook(name, subject)
  local ok, err = self:cancellable(self.run_hook, self, name, subject)
  if ok then return end
  self:emit("hook_failed", { message = tostring(err) })
  error(err, 0)
end

-- Gives a table its previous content.
local function restore(subject, before)
  for key in next, subject do subject[key] = nil end
  for key, value in next, before do subject[key] = value end
end

--- Runs hooks that cannot veto: an error is an event and changes nothing.
---@param name string
---@param subject? any
---@return boolean ok
---@return table? err
function M:notify_hook(name, subject)
  local before = type(subject) == "table" and tables.copy(subject)
  local fiber <close> = runtime.spawn(internal.call, self.run_hook, self, name, subject)
  self.notifying[fiber] = true
  local done, ok, err = pcall(fiber.await, fiber)
  self.notifying[fiber] = nil
  if before and not (done and ok) then restore(subject, before) end
  if not done and not self.killed then error(ok, 0) end  -- the caller was cancelled, not the hook
  if not done then return nil, ok end
  if not ok then self:emit("hook_failed", { message = tostring(err) }) end
  return ok, err
end

return M
