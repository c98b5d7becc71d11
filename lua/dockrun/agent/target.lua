--- Finds the containers that a command names as JOB or JOB/TASK: those that the state recorded, and no others.
local observed = require "dockrun.agent.observed"
local runtime = require "dockrun.core.runtime"
local store = require "dockrun.store"

local M = {}

-- "web/server" -> "web", "server"; "web" -> "web"
local function parse(target)
  local job, task = target:match "^([^/]+)/(.+)$"
  return job or target, task
end

--- The containers of a target, running or not.
---@param engine table
---@param options table<string, any>
---@param target? string  JOB or JOB/TASK; nil: every job
---@return Observation[]? records
---@return table? err  kind "failed": no container matches, or the state does not have those that do
function M.find(engine, options, target)
  local job, task
  if target then job, task = parse(target) end
  local state <close>, problem = store.open(options.state_dir, { readonly = true })
  if problem and problem.kind ~= "missing" then return nil, problem end
  local found, err = observed.find({ engine = engine, state = state, options = options }, job)
  if not found then return nil, err end
  local records = {}
  for _, record in ipairs(found.records) do
    if record.container_id and (not task or record.task == task) then records[#records + 1] = record end
  end
  if #records > 0 or not job then return records end
  if #found.unowned > 0 then
    return nil, runtime.error("failed",
      ("the containers of job '%s' are not in this state; `dockrun adopt %s` takes them over"):format(job, job))
  end
  return nil, runtime.error("failed", ("no task matches '%s'; see `dockrun status`"):format(target))
end

--- Those of them that run.
---@param engine table
---@param options table<string, any>
---@param target? string
---@return Observation[]? records
---@return table? err  kind "failed": none runs, if there is a target
function M.running(engine, options, target)
  local records, err = M.find(engine, options, target)
  if not records then return nil, err end
  local running = {}
  for _, record in ipairs(records) do
    if record.state == "running" then running[#running + 1] = record end
  end
  if target and #running == 0 then
    return nil, runtime.error("failed", ("no running task matches '%s'; see `dockrun status`"):format(target))
  end
  return running
end

--- The one running task of a target. Of several allocations of it, the first.
---@param engine table
---@param options table<string, any>
---@param target string
---@return Observation? record
---@return table? err  kind "usage": several tasks match
function M.one(engine, options, target)
  local records, err = M.running(engine, options, target)
  if not records then return nil, err end
  local names, named = {}, {}
  for _, record in ipairs(records) do
    if not named[record.task] then names[#names + 1] = record.job .. "/" .. record.task end
    named[record.task] = true
  end
  if #names == 1 then return records[1] end
  return nil, runtime.error("usage", ("'%s' has several tasks; name one of %s"):format(target, table.concat(names, ", ")))
end

return M
