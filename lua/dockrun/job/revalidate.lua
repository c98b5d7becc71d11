--- Validates a task again, after its text has changed: `interpolated` once its names are filled in (until then a text with
--- `${…}` passes every validator), `hooked` once hooks have changed it. An error is found here, before the task is run.
--- Never changes what it is given.
---
--- A replacement of this file must have `interpolated`, `hooked` and `restore`.

local diagnostics = require "dockrun.job.diagnostics"
local normalise = require "dockrun.job.normalise"
local schema = require "dockrun.job.schema"
local tables = require "dockrun.util.tables"
local tree = require "dockrun.job.tree"

local M = {}

local validate_rows

local function validate(row, value, path, found)
  if type(value) ~= "table" then
    local why = row.check and row.check(value)
    if why then found(path, why) end
  elseif row.rows and tree.is_list(value) then
    for i, item in ipairs(value) do validate_rows(row.rows, item, ("%s[%d]"):format(path, i), found) end
  elseif row.rows then
    validate_rows(row.rows, value, path, found)
  elseif row.check then
    for _, key in ipairs(tables.keys(value)) do
      local why = row.check(value[key])
      if why then found((type(key) == "number" and "%s[%d]" or "%s.%s"):format(path, key), why) end
    end
  end
end

function validate_rows(rows, block, path, found)
  for _, row in ipairs(rows) do
    local value = block[row.name]
    if value ~= nil and not row.unused then validate(row, value, path .. "." .. (row.also or row.name), found) end
  end
end

--- Validates a task in which every name is filled in.
---@param resolved table  normalised and interpolated
---@param path string     its key path
---@param found fun(path: string, why: string)  called for each error
function M.interpolated(resolved, path, found) validate_rows(schema.task, resolved, path, found) end

-- Keys by which tasks refer to each other: they were read with the whole job, and a hook changes one task alone.
local between_tasks = { "depends_on", "lifecycle", "leader", "name" }

--- Reads a task that hooks have changed as if a job file had it.
---@param draft table    a copy of the task that hooks have changed
---@param spec table     the normalised task before the hooks
---@param job table      the normalised job
---@param group table
---@return table? task   a normalised task
---@return SpecError? err
function M.hooked(draft, spec, job, group)
  local raw = {}
  for key, value in next, draft do raw[key] = value end
  for _, key in ipairs(between_tasks) do raw[key] = nil end
  raw.name = spec.name
  local found = diagnostics.new()
  local read = normalise.job({ job = { {
    name = job.name, type = job.type, groups = { { name = group.name, restart = group.restart, tasks = { raw } } },
  } } }, found)
  if not read then return nil, found:error() end
  local task = read.groups[1].tasks[1]
  for _, key in ipairs(between_tasks) do task[key] = spec[key] end
  return task
end

--- The task that hooks have changed, from its record, which holds neither functions nor credentials.
---@param stored table
---@param spec table    the normalised task before the hooks
---@return table draft
function M.restore(stored, spec)
  local draft = tables.copy(stored)
  draft.hooks, draft.config.auth = spec.hooks, spec.config.auth
  for i, check in ipairs(draft.checks or {}) do check.run = spec.checks[i] and spec.checks[i].run end
  return draft
end

return M
