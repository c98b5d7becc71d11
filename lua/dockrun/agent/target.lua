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
---@return Observation[]? observations
---@return table? err  kind "failed": no container matches, or the state does not have those that do
function M.find(engine, options, target)
  local job, task
  if target then job, task = parse(target) end
  local state <close>, problem = store.open(options.state_dir, { readonly = true })
  if problem and problem.kind ~= "missing" then return nil, problem end
  local found, err = observed.find({ engine = engine, state = state, options = options }, job)
  if not found then return nil, err end
  local observations = {}
  for _, seen in ipairs(found.observations) do
    if seen.container_id and (not task or seen.task == task) then observations[#observations + 1] = seen end
  end
  if #observations > 0 or not job then return observations end
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
---@return Observation[]? observations
---@return table? err  kind "failed": none runs, if there is a target
function M.running(engine, options, target)
  local observations, err = M.find(engine, options, target)
  if not observations then return nil, err end
  local running = {}
  for _, seen in ipairs(observations) do
    if seen.state == "running" then running[#running + 1] = seen end
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
---@return Observation? seen
---@return table? err  kind "usage": several tasks match
function M.one(engine, options, target)
  local observations, err = M.running(engine, options, target)
  if not observations then return nil, err end
  local names, named = {}, {}
  for _, seen in ipairs(observations) do
    if not named[seen.task] then names[#names + 1] = seen.job .. "/" .. seen.task end
    named[seen.task] = true
  end
  if #names == 1 then return observations[1] end
  return nil, runtime.error("usage", ("'%s' has several tasks; name one of %s"):format(target, table.concat(names, ", ")))
end

return M
