local agents = require "dockrun.agent"
local apply = require "dockrun.apply"
local claim = require "dockrun.claim"
local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"
local output = require "dockrun.cli.output"

local REASON = "dockrun stop"

-- Stops a job that no process watches; raises if it takes too long, and the next command goes on with it.
local function stop_here(agent, job, timeout)
  local held <close>, why = claim.hold(agent, job, function() end)
  if not held then return nil, why end
  local stopping <close> = dockrun.spawn(apply.stop, agent, job, REASON)
  local found, err = stopping:await(timeout)
  if stopping:status() ~= "done" then
    return nil, dockrun.error("failed", ("job '%s' has not ended within %g s"):format(job, timeout))
  end
  if err then return nil, err end
  if not found then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(job)) end
  return true
end

local function stop(agent, job, timeout)
  local deadline = timeout and dockrun.now() + timeout
  local asked, problem = claim.ask(agent, job, { reason = REASON }, timeout)
  if asked or problem then return asked, problem end
  return stop_here(agent, job, deadline and math.max(deadline - dockrun.now(), 0))
end

return {
  summary = "Stop a job and clean up after it.",
  define = function(command)
    command:argument("job", "The job's name.")
    command:option("--timeout", "Give up after so long (a duration); what has begun goes on."):argname "TIME"
      :convert(duration.parse)
    command:flag("--purge", "Forget it wholly, and remove its containers even where docker.cleanup.container is false.")
  end,
  run = function(args)
    if args.purge then dockrun.options["docker.cleanup.container"] = true end
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    agent.on_warning = function(text) output.say("warn", text) end
    agent.emitter:listen(args.json and output.json or output.say_event)
    local ok, problem = stop(agent, args.job, args.timeout)
    if not ok then return nil, problem end
    if args.purge then
      problem = select(2, agent.state:remove_job(args.job))
      if problem then return nil, problem end
    end
    agent:close()
    return 0
  end,
}
