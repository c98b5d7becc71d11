--- Stops, kills, restarts and detaches a task: methods of a Task, see lifecycle.lua. Teardown of a task that another process
--- started is driver/teardown.lua.
local container_config = require "dockrun.driver.container_config"
local container = require "dockrun.task.container"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"

---@class Task
local M = {}

--- Waits until the container has ended.
---@param timeout number
---@return boolean ended
function M:await_exit(timeout)
  if self.state ~= "stopping" then return true end
  local ended = queue.new()
  table.insert(self.ends, ended)
  return ended:pop(timeout) == true
end

--- Stops the running container as the job says. `watch_end` sees its end.
---@param cause "user"|"health"
---@param reason? string
function M:halt(cause, reason)
  if not self:is_live() then return end
  self:transition("stopping", cause)
  local spec = self.context.resolved
  self:emit("killing", { container_id = self.container_id, message = reason })
  if spec.shutdown_delay > 0 and not self.killed then self:await_exit(spec.shutdown_delay) end
  if self.state ~= "stopping" then return end
  local how = { signal = container_config.stop_signal(self.context), timeout = spec.kill_timeout }
  if not self.killed then self:notify_hook("kill", how) end
  if self.state ~= "stopping" then return end
  local ok, err = container.end_container(self, how)
  if not ok then
    self:emit("failed", { message = "cannot stop it: " .. tostring(err), container_id = self.container_id })
    ok = how.signal ~= container.at_once.signal and container.end_container(self, container.at_once)
    if not ok then return end
  end
  self:emit("killed", { container_id = self.container_id })
  self:notify_hook("killed", { id = self.container_id })
end

--- Stops the container and lets the restart policy decide: for a task whose checks failed too often.
---@param reason string
function M:restart(reason)
  if not self:is_live() then return end
  self.restart_wanted = reason
  self:halt("health", reason)
end

--- Stops the task for good: stops its container as the job says, or cancels what it does before there is one. A second stop
--- changes nothing.
---@param reason? string
function M:stop(reason)
  if self.stopping or self:ended() or self.state == "cleanup" then return end
  self.stopping = runtime.error("cancelled", reason or "stopped")
  self:cancel_current()
  self:halt("user", reason)
end

--- Kills it: no delay, no grace period, and hooks are cancelled.
function M:kill()
  self.killed = true
  for fiber in pairs(self.notifying) do fiber:cancel "killed" end
  if self:ended() then return end
  if self.stopping then self:cancel_current() else self:stop "killed" end
  if self.state == "stopping" then container.end_container(self, container.at_once) end
end

--- Stops watching the task. Its container keeps running.
function M:detach()
  self.detached = true
  local is_idle = self.watching or self.state == "received" or self.state == "waiting"
  if is_idle then self.fiber:cancel "detached" end
end

return M
