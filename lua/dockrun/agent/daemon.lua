--- The loop of `dockrun agent`: takes over every job of the state that no process watches, accepts new ones from `dockrun
--- run -d`, and collects garbage. When it ends, the tasks stay running, and the next agent takes them over. A replacement of
--- this file has the function `run`.
local apply = require "dockrun.agent.apply"
local lock = require "dockrun.agent.lock"
local gc = require "dockrun.agent.gc"
local jobs = require "dockrun.agent.jobs"
local load = require "dockrun.job.load"
local observed = require "dockrun.agent.observed"
local runtime = require "dockrun.core.runtime"

local M = {}

local RETRY = 5  -- seconds before another attempt to take over a job

---@class Daemon
---@field agent Agent
---@field dockrun table  the value of `dockrun` in hooks of job files
local Daemon = {}
Daemon.__index = Daemon

local function raise_unless(ok, err)
  if not ok then error(err, 0) end
  return ok
end

-- recorded: the job runs already; an older version without limits may have started it.
local function read(self, source, recorded) return raise_unless(load.source(source, self.dockrun, recorded)) end

-- Answers `dockrun run -d`.
local function submit(self, source)
  local job = read(self, source)
  raise_unless(jobs.deploy(self.agent, job, source))
  return { failures = self.agent:await_running(job.name), warnings = self.agent:limitations_of(job.name) }
end

-- Takes over a job of the state: by its text, or without one by its containers. Reads the state once the lock is held: before
-- that, another process may have stopped the job.
local function recover(self, name)
  local agent = self.agent
  return jobs.hold(agent, name, function()
    local known, err = agent.state:job(name)
    if not known or known.status ~= "running" then return not err or nil, err end
    local found
    found, err = observed.find(agent, name)
    if not found then return nil, err end
    if observed.is_over(found) then return observed.finish(agent, found, name) end  -- the process was killed before it recorded the end
    if not known.source then return apply.take_over(agent, name) end
    return apply.run(agent, read(self, known.source, true), known.source, self.dockrun)
  end)
end

-- Takes over every job that should run here and that no process watches. Forgets jobs that have ended.
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

--- Runs until it is cancelled, then releases its tasks.
---@param agent Agent
---@param dockrun table  the value of `dockrun` in hooks of job files
---@return nil
---@return table? err  kind "taken": an agent already runs
function M.run(agent, dockrun)
  local self = setmetatable({ agent = agent, dockrun = dockrun }, Daemon)
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
