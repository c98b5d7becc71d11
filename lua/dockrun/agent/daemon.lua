--- The agent that goes on by itself: it takes over every job of the state that nobody watches, takes new ones from `dockrun
--- run -d`, and tidies up. Its own end leaves the tasks running, for the next one to take over.
local apply = require "dockrun.agent.apply"
local lock = require "dockrun.agent.lock"
local gc = require "dockrun.agent.gc"
local jobs = require "dockrun.agent.jobs"
local load = require "dockrun.job.load"
local observed = require "dockrun.agent.observed"
local runtime = require "dockrun.core.runtime"

local M = {}

local RETRY = 5  -- seconds before a job that cannot be had just now is tried again

---@class Supervisor
---@field agent Agent
---@field dockrun table  what hooks of job files find as `dockrun`
local Supervisor = {}
Supervisor.__index = Supervisor

local function raise_unless(ok, err)
  if not ok then error(err, 0) end
  return ok
end

-- recorded: it runs already, perhaps by a version without limits.
local function read(self, source, recorded) return raise_unless(load.source(source, self.dockrun, recorded)) end

-- What `dockrun run -d` asks for.
local function submit(self, source)
  local job = read(self, source)
  raise_unless(jobs.deploy(self.agent, job, source))
  return { failures = self.agent:await_running(job.name), warnings = self.agent:limitations_of(job.name) }
end

-- A job of the state, by the text that it was read from; without one, by what its containers carry. What the state has of
-- it counts once it is held: until then somebody else may have stopped it.
local function recover(self, name)
  local agent = self.agent
  return jobs.hold(agent, name, function()
    local known, err = agent.state:job(name)
    if not known or known.status ~= "running" then return not err or nil, err end
    local found
    found, err = observed.find(agent, name)
    if not found then return nil, err end
    if observed.is_over(found) then return observed.finish(agent, found, name) end  -- it was killed before it could say so
    if not known.source then return apply.take_over(agent, name) end
    return apply.run(agent, read(self, known.source, true), known.source, self.dockrun)
  end)
end

-- Every job that should run here and that no process watches. A job that has ended is forgotten.
local function take_over(self)
  local agent = self.agent
  for _, task in ipairs(agent.tasks) do
    if not agent.held[task.job] then agent:forget(task.job) end
  end
  local all, err = agent.state:jobs()
  if not all then
    agent:warn(err)
    return
  end
  for _, known in ipairs(all) do
    if known.status == "running" and known.endpoint == agent.engine:endpoint() and not agent.held[known.name] then
      local ok, why = recover(self, known.name)
      if not ok and why.kind ~= "taken" then agent:warn(why) end
    end
  end
end

--- Runs until it is cancelled, then lets go of its tasks.
---@param agent Agent
---@param dockrun table  what hooks of job files find as `dockrun`
---@return nil
---@return table? err  kind "taken": there is an agent already
function M.run(agent, dockrun)
  local self = setmetatable({ agent = agent, dockrun = dockrun }, Supervisor)
  local held <close>, err = lock.hold(agent, lock.agent, function(request)
    return submit(self, request.source)
  end)
  if not held and err.kind == "taken" then err.message = "an agent already runs with this state and this engine" end
  if not held then return nil, err end
  local _ <close> = runtime.spawn(gc.run, agent)
  local _ <close> = setmetatable({}, { __close = function() agent:release() end })
  while true do
    take_over(self)
    runtime.sleep(RETRY)
  end
end

return M
