--- Out of memory, told apart from any other SIGKILL: by the engine's event, and by the kernel's own count in the
--- container's cgroup (memory.oom_control of v1, memory.events of v2), which goes with the container and is therefore
--- looked at while it runs.
local cgroup = require "dockrun.core.cgroup"
local runtime = require "dockrun.core.runtime"

local M = {}

local INTERVAL = 1  -- seconds

---@class OomWatch
---@field kills integer
local OomWatch = {}
OomWatch.__index = OomWatch

local function told(self, kills)
  if kills <= self.kills then return end
  self.kills = kills
  self.task:emit("oom", { container_id = self.task.container_id, oom = true, message = "the kernel killed a process of it: out of memory" })
  self.task:late_hook("oom", { id = self.task.container_id, kills = kills })
end

local function look(self)
  local found = self.task.agent.engine:container_inspect(self.task.container_id)
  local pid = found and found.State.Pid or 0
  local group = pid > 0 and cgroup.find(pid)  -- once: the number may be another process's later
  while group do
    local stat = cgroup.read(group)
    if not stat then return end
    told(self, stat.memory.oom_kills or 0)
    runtime.sleep(INTERVAL)
  end
end

--- Watches a task's container until it is closed.
---@param task Task
---@return OomWatch
function M.watch(task)
  local self = setmetatable({ task = task, kills = 0 }, OomWatch)
  if task.agent.engine:endpoint():find "^unix:" then self.looking = runtime.spawn(look, self) end
  return self
end

--- The engine told of one.
function OomWatch:seen()
  if self.kills == 0 then told(self, 1) end
end

---@return integer kills
function OomWatch:count() return self.kills end

function OomWatch:__close()
  if self.looking then self.looking:cancel() end
end

return M
