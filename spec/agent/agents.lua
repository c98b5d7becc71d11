-- Agents inside of the spec's own process, for what a child process cannot be made to do at the right moment.
--
--   local agent <close> = agents.new(endpoint, { started = function(task) … end })
--   agent:submit(agents.job { image = "busybox:1", command = "true" })
--   agent:wait()
--   agents.names(agent.told)
local agent_of = require "dockrun.agent"
local jobs = require "spec.jobs"
local load = require "dockrun.job.load"
local options = require "dockrun.options"

local M = {}

local function finish(agent)
  agent:kill()
  agent:close()
end

--- An agent with hooks of the host. `told` is every event until now; `<close>` ends what still runs.
---@param endpoint string
---@param hooks? table<string, Hook>
---@param set? table<string, any>  options
---@return Agent agent
function M.new(endpoint, hooks, set)
  local all = options.new()
  all["docker.endpoint"], all.state_dir = endpoint, jobs.state_dir
  for name, value in pairs(set or {}) do all[name] = value end
  local agent = assert(agent_of.new(all))
  agent.told, agent.submit = {}, M.submit
  agent.emitter:listen(function(event) table.insert(agent.told, event) end)
  for name, hook in pairs(hooks or {}) do agent.hooks:register(name, hook) end
  return setmetatable(agent, { __index = getmetatable(agent).__index, __close = finish })
end

--- Starts every allocation of a job, whatever there is of it, without holding the job.
---@param agent Agent
---@param job table  normalised
function M.submit(agent, job)
  assert(agent:record(job))
  for _, group in ipairs(job.groups) do
    for index = 0, group.count - 1 do agent:start(job, group, index) end
  end
end

--- A job of jobs.text as a table, under a name of its own.
---@param fields table  as for jobs.text; image busybox:1 and command true if left out
---@return table job
function M.job(fields)
  fields.name, fields.image = fields.name or jobs.unique "inside", fields.image or "busybox:1"
  fields.command = fields.command or "true"
  return assert(load.string(jobs.text(fields), "lua", "spec"))
end

--- "received setup …": of one allocation or of all.
---@param events table[]
---@param alloc? string
---@return string
function M.names(events, alloc)
  local list = {}
  for _, event in ipairs(events) do
    if not alloc or event.alloc == alloc then list[#list + 1] = event.event end
  end
  return table.concat(list, " ")
end

return M
