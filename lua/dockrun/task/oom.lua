--- Detects that the kernel killed a process because of memory, as opposed to any other SIGKILL: by the engine's event, and by
--- the kernel's count in the container's cgroup. The cgroup goes away with the container, so the file is kept open from the
--- start. Version 2 signals each change (poll for POLLPRI, Documentation/admin-guide/cgroup-v2.rst); version 1 is read every
--- second.
local container_cgroup = require "dockrun.driver.cgroup"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local INTERVAL = 1  -- seconds
local SIZE = 4096   -- bytes: more than the file has
local CGROUP2 = 0x63677270  -- CGROUP2_SUPER_MAGIC, statfs(2)

---@class OomWatch
---@field kills integer
---@field file? integer  descriptor of the kernel's count
---@field closed? boolean
local OomWatch = {}
OomWatch.__index = OomWatch

local function report_kills(self, kills)
  if kills <= self.kills then return end
  self.kills = kills
  self.task:emit("oom", { container_id = self.task.container_id, oom = true, message = "the kernel killed a process of it: out of memory" })
  self.task:notify_hook("oom", { id = self.task.container_id, kills = kills })
end

-- Reads the count. False if there is none (any more).
local function read_count(self)
  local text = self.file and uv.fs_read(self.file, SIZE, 0)
  local kills = text and text:match "oom_kill (%d+)"
  if kills then report_kills(self, math.tointeger(kills)) end
  return kills ~= nil
end

local function forget(self)
  if self.poll then self.poll:close() end
  if self.file then uv.fs_close(self.file) end
  self.poll, self.file = nil, nil
end

local function follow(self, root)
  local group = container_cgroup.of(self.task.services.engine, self.task.container_id, root)
  local path = group and not self.closed and container_cgroup.memory_events(group)
  self.file = path and uv.fs_open(path, "r", 0)
  if not self.file then return end
  local changed = queue.new()
  -- Only for version 2: luv 1.44 leaks the handle of a file that cannot be polled.
  local system = uv.fs_statfs(path:match "^(.*)/")
  self.poll = system and system.type == CGROUP2 and uv.new_poll(self.file) or nil
  if self.poll then self.poll:start("p", function() changed:push(true) end) end
  while read_count(self) do changed:pop(INTERVAL) end
  forget(self)
end

--- Watches a task's container until it is closed.
---@param task Task
---@param root? { cgroup?: string, proc?: string }  as for cgroup.find()
---@return OomWatch
function M.watch(task, root)
  local self = setmetatable({ task = task, kills = 0 }, OomWatch)
  if task.services.engine:endpoint():find "^unix:" then self.following = runtime.spawn(follow, self, root) end
  return self
end

--- Takes an "oom" event of the engine.
function OomWatch:seen()
  if self.kills == 0 then report_kills(self, 1) end
end

---@return integer kills
function OomWatch:count()
  read_count(self)
  return self.kills
end

function OomWatch:__close()
  self.closed = true
  if self.following then self.following:cancel() end
  forget(self)
end

return M
