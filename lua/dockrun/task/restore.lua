--- Continues a task that another process started: methods of a Task, see lifecycle.lua.
local handles = require "dockrun.driver.handle"
local oom = require "dockrun.task.oom"
local snapshot = require "dockrun.task.snapshot"
local revalidate = require "dockrun.job.revalidate"
local runtime = require "dockrun.core.runtime"
local setup = require "dockrun.task.setup"

---@class Task
---@field resume? function  its first run
local M = {}

-- By the state that it was in: the first run of the task, in place of `run_once`.
local resume = {}

-- The container; nil if it does not exist. Waits for an engine that cannot be reached: to take the container for lost would
-- start the task twice.
local function inspect(self)
  local pause = 0.2
  while not self.killed do
    local found, err = self.services.engine:container_inspect(self.container_id)
    if found or err.status == 404 then return found end
    runtime.sleep(pause)
    pause = math.min(pause * 2, 5)
  end
  error(self.stopping, 0)
end

-- Its container runs, has ended or was removed: `watch_end` finds out.
function resume.running(self)
  local found = inspect(self)
  self.events = self.services.watch:add(self.container_id)
  self.events:push { action = "resync" }
  setup.restore(self, found)
  self.started, self.started_at = true, self.recovered.started_at
  self:transition("running", "recovery")
  local image_id = found and self.context.image.id
  self:emit("reattached", {
    container_id = self.container_id, image_id = image_id or nil, ports = self.context.ports,
    message = found and handles.format(image_id, self.container_id) or "its container is gone",
  })
  if self.services.on_log and found then self.logs = runtime.spawn(self.services.on_log, self, true) end
  local kernel <close> = oom.watch(self)
  self:watch_end(kernel)
end

-- Its end was recorded, but no decision about a restart.
function resume.exited(self)
  setup.restore(self)
  self:transition("exited", "recovery")
end

function resume.waiting(self)
  setup.restore(self)
  self.wake_at = snapshot.from_wall(self.recovered.row.detail.wake_at or 0)
  self:transition("waiting", "recovery")
  self:await_attempt()
  self:run_once()
end

local has_run = { running = true, healthy = true, unhealthy = true, stopping = true }

-- The entry for what was found; nil if the task starts from the beginning.
local function entry(found)
  local state = found.row.state
  if state == "cleanup" then return "cleanup" end
  if found.state == "running" and (found.container_id or found.row.container_id) then return "running" end
  if state == "exited" or state == "waiting" then return state end
  if found.container_id and (found.started_at or has_run[state]) then return "running" end
end

--- Continues from what another process recorded and what the engine has. To be called before `run`.
---@param found Observation  see agent/observed.lua
function M:recover(found)
  self.recovered, self.container_id, self.context.ports = found, found.container_id, found.ports
  self.entry = entry(found)
  self.resume = resume[self.entry]
  local row = found.row
  if self.entry == "running" then self.container_id = self.container_id or row.container_id end  -- `running` sees that it is gone
  local detail = row.detail
  self.intent = detail.intent
  self.context.draft = detail.wanted and revalidate.restore(detail.wanted, self.context.spec)
  if self.context.draft then self.restarts.policy = self.context.draft.restart end
  self.restarts:restore(row, snapshot.from_wall(row.restart_since))
  self.started, self.succeeded = detail.started, detail.succeeded
  self.restart_wanted, self.result, self.finished_at = detail.restart_wanted, snapshot.result(row), row.finished_at
  self.stopping = self.entry == "cleanup" and detail.stopping and runtime.error("cancelled", detail.stopping) or nil
  if row.state == "dead" or row.state == "failed" then self.state, self.error = row.state, detail.error end
end

return M
