#!/usr/bin/env dockrun
-- Runs a job with hooks of its own: labels every container with who started it and when, refuses images that are not
-- from the registry given, and says how each task ended.
--
--   dockrun scripts/run-with-hook.lua [--registry PREFIX] [--owner NAME] JOB
local argparse = require "argparse"
local dockrun = require "dockrun"

local parser = argparse("run-with-hook.lua", "Runs a job under hooks that label, check and report.")
parser:argument("job", "Job file.")
parser:option("--registry", "Refuse images that do not start with this."):argname "PREFIX"
parser:option("--owner", "Value of the label 'owner'.", os.getenv "USER" or "nobody"):argname "NAME"
local args = parser:parse()

local job = assert(dockrun.load_job(args.job))
local agent = assert(dockrun.agent())

agent.hooks:register("pull", function(_, pull)
  if args.registry and pull.image:sub(1, #args.registry) ~= args.registry then
    return false, ("%s is not from %s"):format(pull.image, args.registry)
  end
end)

agent.hooks:register("create", function(_, container)
  container.Labels.owner = args.owner
  container.Labels["started-at"] = os.date "!%Y-%m-%dT%H:%M:%SZ"
end)

agent.hooks:register("exited", function(task, result)
  print(("%s ended with %s%s"):format(task.name, result.exit_code or "no exit code", result.oom and ", out of memory" or ""))
end)

agent.emitter:listen(function(event)
  if event.event == "failed" or event.event == "hook_failed" then io.stderr:write(event.task, ": ", event.message, "\n") end
end)

agent:submit(job)
local interrupted, ok = false, nil
local waited, why = pcall(function() ok = agent:wait() end)
if not waited then
  if type(why) ~= "table" or why.kind ~= "cancelled" then error(why, 0) end
  interrupted = true
  agent:stop(tostring(why))
end
agent:close()
os.exit(interrupted and 130 or ok and 0 or 1, true)
