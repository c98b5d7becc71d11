local agents = require "dockrun.agent"
local apply = require "dockrun.apply"
local claim = require "dockrun.claim"
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"

return {
  summary = "Stop a job and clean up after it.",
  define = function(command)
    command:argument("job", "The job's name.")
    command:flag("--purge", "Forget it wholly, and remove its containers even where docker.cleanup.container is false.")
  end,
  run = function(args)
    if args.purge then dockrun.options["docker.cleanup.container"] = true end
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    agent.on_warning = function(text) output.say("warn", text) end
    agent.emitter:listen(args.json and output.json or output.say_event)
    local asked, problem = claim.ask(agent, args.job, { reason = "dockrun stop" })
    if problem then return nil, problem end
    if not asked then
      local held <close>, why = claim.hold(agent, args.job, function() end)
      if not held then return nil, why end
      local found
      found, err = apply.stop(agent, args.job, "dockrun stop")
      if err then return nil, err end
      if not found then return nil, dockrun.error("failed", ("no job '%s' on this engine"):format(args.job)) end
    end
    if args.purge then
      problem = select(2, agent.state:remove_job(args.job))
      if problem then return nil, problem end
    end
    agent:close()
    return 0
  end,
}
