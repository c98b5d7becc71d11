-- The containers that the state recorded, for commands that look into them.
local dockrun = require "dockrun"
local observed = require "dockrun.agent.observed"
local store = require "dockrun.store"

--- Those of a job, or of one of its tasks, or all.
---@param engine table
---@param job? string
---@param task? string
---@return TaskRecord[]? records
---@return table? err  kind "failed" if all that is there is not in this state
return function(engine, job, task)
  local state <close>, problem = store.open(dockrun.options.state_dir, { readonly = true })
  if problem and problem.kind ~= "missing" then return nil, problem end
  local found, err = observed.find({ engine = engine, state = state, options = dockrun.options }, job)
  if not found then return nil, err end
  local records = {}
  for _, record in ipairs(found.records) do
    if record.container_id and (not task or record.task == task) then records[#records + 1] = record end
  end
  if job and #records == 0 and #found.unowned > 0 then
    return nil, dockrun.error("failed", ("the containers of job '%s' are not in this state; `dockrun adopt %s` takes them over"):format(
      job, job))
  end
  return records
end
