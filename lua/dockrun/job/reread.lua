--- A task that hooks have changed, read once more: what is wrong with it is found here, and not by whoever runs it.
local normalise = require "dockrun.job.normalise"
local diagnostics = require "dockrun.job.diagnostics"
local tables = require "dockrun.util.tables"

local M = {}

-- What tasks say of each other was read with all of them.
local together = { "depends_on", "lifecycle", "leader", "name" }

--- Reads it.
---@param changed table  a copy of `before`, then changed
---@param before table   the normalised task that it was
---@param job table      the normalised job
---@param group table
---@return table? task   a normalised task
---@return SpecError? err
function M.task(changed, before, job, group)
  local raw = {}
  for key, value in next, changed do raw[key] = value end
  for _, key in ipairs(together) do raw[key] = nil end
  raw.name = before.name
  local found = diagnostics.new()
  local read = normalise.job({ job = { {
    name = job.name, type = job.type, groups = { { name = group.name, restart = group.restart, tasks = { raw } } },
  } } }, found)
  if not read then return nil, found:error() end
  local task = read.groups[1].tasks[1]
  for _, key in ipairs(together) do task[key] = before[key] end
  return task
end

--- What hooks made of a task, from a record of it, which holds neither functions nor credentials.
---@param recorded table
---@param before table   the normalised task that it was
---@return table task
function M.restore(recorded, before)
  local task = tables.copy(recorded)
  task.hooks, task.config.auth = before.hooks, before.config.auth
  for i, check in ipairs(task.checks or {}) do check.run = before.checks[i] and before.checks[i].run end
  return task
end

return M
