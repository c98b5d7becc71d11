--- The agent that goes on by itself: it takes over every job of the state that nobody watches, takes new ones from `dockrun
--- run -d`, and tidies up. Its own end leaves the tasks running, for the next one to take over.
local apply = require "dockrun.apply"
local claim = require "dockrun.claim"
local gc = require "dockrun.gc"
local internal = require "dockrun.util.internal"
local load = require "dockrun.job.load"
local plans = require "dockrun.plan"
local queue = require "dockrun.core.queue"
local recovery = require "dockrun.recovery"
local runtime = require "dockrun.core.runtime"

local M = {}

local RETRY = 5  -- seconds before a job that cannot be had just now is tried again

---@class Supervisor
---@field agent Agent
---@field jobs table<string, true>      those under way here
---@field changing table<string, integer>  how much is under way that makes them what they should be
---@field dockrun table  what hooks of job files find as `dockrun`
local Supervisor = {}
Supervisor.__index = Supervisor

local function raise_unless(ok, err)
  if not ok then error(err, 0) end
  return ok
end

local function read(self, source) return raise_unless(load.source(source, self.dockrun)) end

-- Runs what changes a job. Meanwhile nothing else may, but a stop.
local function changing(self, name, change)
  self.changing[name] = (self.changing[name] or 0) + 1
  local _ <close> = setmetatable({}, { __close = function()
    local left = self.changing[name] - 1
    self.changing[name] = left > 0 and left or nil
  end })
  return change()
end

-- Holds a job from here to its end, however often it is submitted anew meanwhile. Between two allocations of a change
-- nothing may run for a moment: that is no end.
local function watch(self, name, ready, first)
  local agent = self.agent
  local held <close>, err = claim.hold(agent, name, function(request)
    local _, why = changing(self, name, function() return apply.stop(agent, name, claim.reason(request)) end)
    if why then error(why, 0) end
  end)
  if not held then
    ready:push { nil, err }
    return
  end
  self.jobs[name] = true
  local _ <close> = setmetatable({}, { __close = function() self.jobs[name] = nil end })
  local done, ok, why = xpcall(changing, internal.handler, self, name, first)
  if not done then ok, why = nil, ok end
  ready:push { ok, why }
  if not done and type(why) == "table" and why.kind == "cancelled" then return end  -- let go of
  repeat
    agent:await_job(name)
    runtime.sleep(0.05)
  until not self.changing[name] and agent:job_has_ended(name)
  agent:forget(name)
end

-- Starts watching; returns once the job is as it should be, or cannot be.
local function start(self, name, first)
  local ready = queue.new()
  runtime.spawn(watch, self, name, ready, first)
  local answer = ready:pop()
  return answer[1], answer[2]
end

local function busy(name)
  return runtime.error("taken", ("job '%s' is being changed just now; try again once that is done"):format(name))
end

-- What `dockrun run -d` asks for.
local function submit(self, source)
  local job = read(self, source)
  raise_unless(plans.check(job, self.agent:host()))
  local function change()
    self.agent.limitations[job.name] = nil  -- the one who asks hears of them all
    return apply.run(self.agent, job, source, self.dockrun)
  end
  if self.jobs[job.name] then
    if self.changing[job.name] then raise_unless(nil, busy(job.name)) end
    raise_unless(changing(self, job.name, change))
  else
    raise_unless(start(self, job.name, change))
  end
  return { failures = self.agent:await_running(job.name), warnings = self.agent:limitations_of(job.name) }
end

-- A job of the state, by the text that it was read from; without one, by what its containers carry. What the state has of
-- it counts once it is held: until then somebody else may have stopped it.
local function recover(self, name)
  local agent = self.agent
  return start(self, name, function()
    local known, err = agent.state:job(name)
    if not known or known.status ~= "running" then return not err or nil, err end
    local found
    found, err = recovery.find(agent.engine, agent.state, name)
    if not found then return nil, err end
    if recovery.is_over(found) then return recovery.finish(agent, found, name) end  -- it was killed before it could say so
    if not known.source then return apply.take_over(agent, name) end
    return apply.run(agent, read(self, known.source), known.source, self.dockrun)
  end)
end

-- Every job that should run here and that nobody watches.
local function take_over(self)
  local agent = self.agent
  local jobs, err = agent.state:jobs()
  if not jobs then
    agent:warn(err)
    return
  end
  for _, known in ipairs(jobs) do
    if known.status == "running" and known.endpoint == agent.engine:endpoint() and not self.jobs[known.name] then
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
  local self = setmetatable({ agent = agent, jobs = {}, changing = {}, dockrun = dockrun }, Supervisor)
  local held <close>, err = claim.hold(agent, claim.agent, function(request)
    return submit(self, request.source)
  end)
  if not held and err.kind == "taken" then err.message = "an agent with this state and this engine runs already" end
  if not held then return nil, err end
  local _ <close> = runtime.spawn(gc.run, agent)
  local _ <close> = setmetatable({}, { __close = function() agent:let_go() end })
  while true do
    take_over(self)
    runtime.sleep(RETRY)
  end
end

return M
