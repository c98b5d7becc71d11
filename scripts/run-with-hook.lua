#!/usr/bin/env dockrun
-- Runs a job with hooks of this script: they label each container with its owner and time, refuse images from other
-- registries, and print how each task ended.
--
--   dockrun scripts/run-with-hook.lua [--registry PREFIX] [--owner NAME] JOB
--
-- Exit: 0 every task ended well, 1 one did not, 2 wrong arguments or job file, 130 interrupted.
local dockrun = require "dockrun"

local parser = dockrun.arguments.parser("run-with-hook.lua", "Runs a job under hooks that label, check and report.")
parser:argument("job", "Job file.")
parser:option("--registry", "Refuse images from elsewhere; such as registry.example:5000/team."):argname "PREFIX"
parser:option("--owner", "Value of the label 'owner'.", os.getenv "USER" or "nobody"):argname "NAME"
local args = parser:parse()
local prefix = args.registry and args.registry:gsub("/*$", "/")  -- whole parts: registry.example is not registry.example.org

local job, bad = dockrun.load_job(args.job)
if not job then
  io.stderr:write(dockrun.safe(tostring(bad), "text"), "\n")
  os.exit(2, true)
end
local agent = assert(dockrun.agent())

agent.hooks:register("pull", function(_, pull)
  if prefix and pull.image:sub(1, #prefix) ~= prefix then
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

local said = {}  -- a veto is an event, and again the reason of the task's failure
agent.emitter:listen(function(event)
  if event.event ~= "failed" and event.event ~= "hook_failed" then return end
  local line = dockrun.safe(("%s: %s"):format(event.task, event.message), "text") .. "\n"
  if said[event.alloc] ~= line then io.stderr:write(line) end
  said[event.alloc] = line
end)

-- If a killed script left the job behind, this takes it over; if another process runs it, that is an error.
local code
local waited, status, err = pcall(agent.run, agent, job, { wait = "exited" })
if waited then
  -- The listener has printed failed tasks.
  if err and err.kind ~= "failed" then io.stderr:write(dockrun.safe(tostring(err), "text"), "\n") end
  code = status and not err and 0 or 1
else
  local why = status
  if type(why) ~= "table" or why.kind ~= "cancelled" then error(why, 0) end
  agent:stop(job.name, { reason = tostring(why) })
  code = 130
end
agent:close()
os.exit(code, true)
