local agents = require "dockrun.agent"
local daemon = require "dockrun.agent.daemon"
local dockrun = require "dockrun"
local output = require "dockrun.output"
local runtime = require "dockrun.core.runtime"

return {
  summary = "Watch every job of the state, and every job that `run -d` hands over.",
  define = function() end,
  run = function(args)
    local agent, err = agents.new(dockrun.options)
    if not agent then return nil, err end
    agent.on_warning = function(text) output.say("warn", text) end
    agent.emitter:listen(args.json and output.json or output.say_event)
    runtime.ignore_hangup()
    output.say("info", ("watching %s, with the state in %s"):format(agent.engine:endpoint(), dockrun.options.state_dir))
    local returned, reason, why = pcall(daemon.run, agent, dockrun)
    if returned then return nil, why end
    if type(reason) ~= "table" or reason.kind ~= "cancelled" then error(reason, 0) end
    output.say("info", ("%s: left the tasks running"):format(reason))
    return 0
  end,
}
