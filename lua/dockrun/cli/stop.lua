local agents = require "dockrun.agent"
local dockrun = require "dockrun"
local duration = require "dockrun.job.duration"
local jobs = require "dockrun.agent.jobs"
local output = require "dockrun.output"

return {
  summary = "Stop a job and remove its containers.",
  define = function(command)
    command:argument("job", "The job's name.")
    command:option("--timeout", "Stop waiting after this time (a duration); the stop itself continues."):argname "TIME"
      :convert(duration.parse)
    command:flag("--purge", "Also forget the job, and remove its containers even if docker.cleanup.container is false.")
  end,
  run = function(args)
    if args.purge then dockrun.options["docker.cleanup.container"] = true end
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    agent.on_warning = function(text) output.say("warn", text) end
    agent.emitter:listen(args.json and output.json or output.say_event)
    local ok
    ok, err = jobs.stop(agent, args.job, { reason = "dockrun stop", purge = args.purge, timeout = args.timeout })
    if not ok then return nil, err end
    agent:close()
    return 0
  end,
}
