--- Makes the record of a task: all that another process needs to continue after this one is killed. lifecycle.lua writes it at
--- every transition, before the work of the new state: "creating" is recorded before the request to create.
local labels = require "dockrun.driver.labels"
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"
local time = require "dockrun.util.time"

local M = {}

--- Converts a moment of runtime.now() to seconds since 1970, which other processes understand.
---@param moment number  of runtime.now()
---@return number
function M.to_wall(moment) return time.now() + moment - runtime.now() end

--- The opposite of `to_wall`.
---@param seconds number  since 1970
---@return number moment
function M.from_wall(seconds) return runtime.now() + seconds - time.now() end

--- The record of a task as it is now.
---@param task Task
---@return table record  see store/records.lua, TaskRecord
function M.of(task)
  local context, result, restarts = task.context, task.result or {}, task.restarts
  task.stored = task.stored or json.decode(labels.definition(context.spec, context.meta))
  if context.draft then task.stored_draft = task.stored_draft or json.decode(labels.definition(context.draft, context.meta)) end
  return {
    alloc = task.alloc_id, task = task.name, state = task.state, container_id = task.container_id,
    image = context.image and context.image.reference.full or task:planned_image(), image_id = context.image and context.image.id,
    ports = json.array(context.ports), exit_code = result.exit_code, signal = result.signal, oom = result.oom,
    restarts = restarts.total, restart_count = restarts.count, restart_since = M.to_wall(restarts.since),
    started_at = task.started_at, finished_at = task.result and task.finished_at,
    definition = task.stored,
    detail = {
      intent = task.intent, started = task.started, succeeded = task.succeeded, result_error = result.error,
      wanted = task.stored_draft, stopping = task.stopping and tostring(task.stopping), restart_wanted = task.restart_wanted,
      wake_at = task.wake_at and M.to_wall(task.wake_at), error = task.error and tostring(task.error),
    },
  }
end

--- The result of the last run, from its record.
---@param record table
---@return TaskResult? result
function M.result(record)
  if not record.finished_at then return nil end
  return { exit_code = record.exit_code, signal = record.signal, oom = record.oom or false, error = record.detail.result_error }
end

return M
