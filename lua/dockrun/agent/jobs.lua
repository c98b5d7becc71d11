--- Runs, plans, stops and kills jobs: for the commands, the daemon, scripts and host programs. A process holds the lock of a job
--- (lock.lua) from before it makes the plan until the job has ended. A replacement of this file has the functions below.
local apply = require "dockrun.agent.apply"
local lock = require "dockrun.agent.lock"
local internal = require "dockrun.util.internal"
local driver = require "dockrun.driver.docker"
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local plans = require "dockrun.agent.plan"
local queue = require "dockrun.core.queue"
local observed = require "dockrun.agent.observed"
local runtime = require "dockrun.core.runtime"
local status = require "dockrun.agent.status"

local M = {}

---@class HeldJob  a job whose lock this process holds; Agent.held has them by name
---@field changing integer   how many changes and stops of it are in progress
---@field fiber table        ends when the job has ended and its lock is released

-- Marks a change or a stop of a job as in progress until it is closed. The lock is held as long.
local function begin(held)
  held.changing = held.changing + 1
  return setmetatable({}, { __close = function() held.changing = held.changing - 1 end })
end

local function changing(held, change, ...)
  local _ <close> = begin(held)
  return change(...)
end

-- Holds the lock of a job until the job has ended, however often it is changed meanwhile. Between two allocations no task runs
-- for a moment: the job has not ended then.
local function hold(agent, name, ready, first, on_held)
  local held = { changing = 0, fiber = runtime.current() }
  local job_lock <close>, err = lock.hold(agent, name, function(request)
    local _, why = changing(held, apply.stop, agent, name, lock.reason(request))
    if why then error(why, 0) end
  end)
  if not job_lock then
    ready:push { nil, err }
    return
  end
  agent.held[name] = held
  local _ <close> = setmetatable({}, { __close = function() agent.held[name] = nil end })
  if on_held then on_held() end
  local done, ok, why = xpcall(changing, internal.handler, held, first)
  if not done then ok, why = nil, ok end
  ready:push { ok, why }
  if not done and type(why) == "table" and why.kind == "cancelled" then return end  -- released
  agent:await_job(name)
  while held.changing > 0 or not agent:job_has_ended(name) do
    runtime.sleep(0.05)
    agent:await_job(name)
  end
end

--- Takes the lock of a job, then calls `first`.
---@param agent Agent
---@param name string
---@param first fun(): true?, table?  deploys it
---@param on_held? fun()              called once the lock is held, before `first`
---@return true? ok    of `first`
---@return table? err  of `first`; kind "taken": another process holds the lock; "system"; those of the state
function M.hold(agent, name, first, on_held)
  local ready = queue.new()
  runtime.spawn_free(hold, agent, name, ready, first, on_held)
  local answer = ready:pop()
  return answer[1], answer[2]
end

--- Deploys a job and watches it from then on: adopts what exists, starts what is missing, and changes what differs.
---@param agent Agent
---@param job table          normalised
---@param source? JobSource  the text of the job: another process can take the job over by it
---@param on_held? fun()     as of `hold`
---@return true? ok
---@return table? err  as of `hold` and of apply.run; kind "taken": another change of it is in progress
function M.deploy(agent, job, source, on_held)
  local ok, err = plans.check(job, agent:host())
  if not ok then return nil, err end
  local held = agent.held[job.name]
  local function change()
    agent.limitations[job.name] = nil  -- this caller gets all of them
    return apply.run(agent, job, source, require "dockrun")
  end
  if not held then
    agent:forget(job.name)  -- tasks of an earlier run
    return M.hold(agent, job.name, change, on_held)
  end
  if held.changing > 0 then
    return nil, runtime.error("taken", ("job '%s' is being changed; try again when that is done"):format(job.name))
  end
  local _ <close> = begin(held)
  if on_held then on_held() end
  return change()
end

-- Each waits, and returns why tasks failed.
local waits = {}

function waits.none() return {} end

function waits.running(agent, name) return agent:await_running(name) end

function waits.healthy(agent, name) return agent:await_healthy(name) end

function waits.exited(agent, name)
  local held = agent.held[name]
  if held then held.fiber:join() end
  return agent:failures(name)
end

--- Waits for a job that was deployed.
---@param agent Agent
---@param name string
---@param what "running"|"healthy"|"exited"|"none"  until every task runs, or has ended; is healthy, or has ended; has ended
---@param timeout? number  seconds; the job continues after that
---@return true? ok
---@return table? err      kind "failed": tasks have failed, `failures` says why; "timeout"
function M.await(agent, name, what, timeout)
  local waiting <close> = runtime.spawn(waits[what], agent, name)
  local failures = waiting:await(timeout)
  if not failures then return nil, runtime.error("timeout", ("job '%s' is not %s within %g s"):format(name, what, timeout)) end
  if #failures == 0 then return true end
  local err = runtime.error("failed", ("job '%s': %s"):format(name, table.concat(failures, "; ")))
  err.failures = failures
  return nil, err
end

--- Releases every job, once changes in progress are done. Its containers keep running, and another process may take the job
--- over.
---@param agent Agent
function M.leave(agent)
  local fibers = {}
  for _, held in pairs(agent.held) do
    while held.changing > 0 do runtime.sleep(0.02) end
    fibers[#fibers + 1] = held.fiber
  end
  agent:release()
  for _, fiber in ipairs(fibers) do fiber:cancel() end
  for _, fiber in ipairs(fibers) do fiber:join() end
end

local function read(job, vars)
  if type(job) == "table" and type(job.warnings) == "table" then return job end
  if type(job) ~= "string" then error("a job is the path of its file, or what dockrun.load_job returned", 3) end
  local source, err = load.read(job, { runtime = require "dockrun" })
  if not source then return nil, err end
  source.vars = vars
  job, err = load.source(source, require "dockrun")
  return job, job and source or err
end

--- Says what `run` would change.
---@param agent Agent
---@param job table|string  as of `run`
---@param opts? { vars?: table<string, string> }
---@return { job: string, changes: table[] }? plan  as `dockrun plan --json` prints it
---@return table? err
function M.plan(agent, job, opts)
  local source, ok, err
  job, source = read(job, opts and opts.vars)
  if not job then return nil, source end
  ok, err = plans.check(job, agent:host())
  if not ok then return nil, err end
  local found
  found, err = observed.find(agent, job.name)
  if not found then return nil, err end
  local changes = json.array {}
  local plan = plans.make(job, observed.adoptable(found), function() return driver.can_update(agent.engine) end)
  ok, err = plans.check_room(plan, agent.state, agent.options["limits.allocs"])
  if not ok then return nil, err end
  for _, alloc in ipairs(plan.allocs) do
    table.move(alloc.tasks, 1, #alloc.tasks, #changes + 1, changes)
  end
  return { job = job.name, changes = changes }
end

-- Stops a job: takes its lock for that time, if this process does not hold it.
local function ending(agent, name, finish, reason)
  local held = agent.held[name]
  if not held then
    local job_lock <close>, err = lock.hold(agent, name, function() end)
    if not job_lock then return nil, err end
    return finish(agent, name, reason)
  end
  local found, err = changing(held, finish, agent, name, reason)
  held.fiber:join()
  return found, err
end

--- Stops a job as its text says, and cleans up. If another process watches it, that process does this.
---@param agent Agent
---@param name string
---@param opts? { reason?: string, purge?: boolean, timeout?: number }  purge: remove it from the state; timeout: seconds to
---  wait; the stop continues after that
---@return true? ok
---@return table? err  kind "failed": there is no such job, or it did not end in time; those of the process that watches it
function M.stop(agent, name, opts)
  opts = opts or {}
  local reason, deadline = opts.reason or "stopped", opts.timeout and runtime.now() + opts.timeout
  local found, err
  if not agent.held[name] then
    found, err = lock.ask(agent, name, { reason = reason }, opts.timeout)
    if err then return nil, err end
  end
  if not found then
    local stopping <close> = runtime.spawn(ending, agent, name, apply.stop, reason)
    found, err = stopping:await(deadline and math.max(deadline - runtime.now(), 0))
    if stopping:status() ~= "done" then
      return nil, runtime.error("failed", ("job '%s' did not end within %g s"):format(name, opts.timeout))
    end
    if err then return nil, err end
  end
  if not found then return nil, runtime.error("failed", ("no job '%s' on this engine"):format(name)) end
  if opts.purge then
    err = select(2, agent.state:remove_job(name))
    if err then return nil, err end
  end
  return true
end

--- Kills what runs of a job.
---@param agent Agent
---@param name string
---@return true? ok
---@return table? err
function M.kill(agent, name) return ending(agent, name, apply.kill) end

---@class RunOptions
---@field vars? table<string, string>  of a job file
---@field wait? "running"|"healthy"|"exited"|"none"  see `await`; "none" does not wait until it is deployed
---@field timeout? number  seconds to wait after the deployment

-- Returns once the lock is held. A later error is a warning.
local function deploy_async(agent, job, source)
  local outcome = queue.new()
  runtime.spawn_free(function()
    local held
    local ok, err = M.deploy(agent, job, source, function()
      held = true
      outcome:push { true }
    end)
    if not ok and held then agent:warn(err) end
    if not held then outcome:push { nil, err } end
  end)
  local answer = outcome:pop()
  return answer[1], answer[2]
end

--- Does the work of `dockrun run`.
---@param agent Agent
---@param job table|string  normalised, see job/load.lua, or the path of a job file
---@param opts? RunOptions
---@return { jobs: table[] }? status  of the job, as `dockrun status --json` prints it; nil if it could not be deployed
---@return table? err  kind "taken": another process holds its lock; "failed", "timeout": see `await`; those of `deploy`
function M.run(agent, job, opts)
  opts = opts or {}
  local wait = opts.wait or "running"
  if not waits[wait] then error(("wait is running, healthy, exited or none, not '%s'"):format(wait), 2) end
  local read_job, source = read(job, opts.vars)
  if not read_job then return nil, source end
  local deploy = wait == "none" and deploy_async or M.deploy
  local ok, err = deploy(agent, read_job, source)
  if not ok then return nil, err end
  ok, err = M.await(agent, read_job.name, wait, opts.timeout)
  local now, problem = M.status(agent, read_job.name)
  return now, not ok and err or problem
end

--- Jobs and their tasks.
---@param agent Agent
---@param name? string  this job alone
---@return { jobs: table[] }? status  as `dockrun status --json` prints it
---@return table? err
function M.status(agent, name)
  local jobs, err = status.jobs(agent, name)
  return jobs and { jobs = jobs }, err
end

return M
