local agents = require "dockrun.agent"
local arguments = require "dockrun.arguments"
local dockrun = require "dockrun"
local internal = require "dockrun.util.internal"
local jobs = require "dockrun.agent.jobs"
local load = require "dockrun.job.load"
local lock = require "dockrun.agent.lock"
local logs = require "dockrun.driver.logs"
local output = require "dockrun.output"
local plans = require "dockrun.agent.plan"
local runtime = require "dockrun.core.runtime"
local standard = require "dockrun.core.standard"

local palette = { "32", "33", "34", "35", "36", "92", "93", "94", "95", "96" }

-- Shows a task's output, with the task's name before each line. It waits for a slow reader only while the container runs:
-- afterwards all output must be read before the container is removed.
local function log_follower(agent, plain)
  local color = 0
  return function(task, is_reattached)
    color = color % #palette + 1
    local name = task.context.group.count > 1 and ("%s[%d]"):format(task.name, task.context.alloc.index) or task.name
    local prefix = output.paint(name .. " | ", palette[color])
    local opts = { follow = true, tty = task.context.resolved.config.tty, tail = is_reattached and "0" or nil }
    logs.each(agent.engine, task.container_id, opts, function(bytes)
      local ok = standard.write(1, output.lines(1, task, prefix, plain and output.plain(bytes) or bytes))
      while ok and task:is_live() and standard.wait(1, 1) == false do end
      return ok ~= nil
    end, function(text) output.say("warn", ("%s.%s.%s: %s"):format(task.context.job.name, task.context.group.name, task.name, text)) end)
  end
end

local function progress_bar(task, current, total)
  local width = 30
  local done = total > 0 and math.floor(width * current / total) or 0
  standard.write(2, ("\r\27[K%s [%s%s] %5.1f of %.1f MB%s"):format(
    output.safe(task.context.resolved.config.image), ("#"):rep(done), ("-"):rep(width - done), current / 1e6, total / 1e6,
    current >= total and "\n" or ""))
end

local function listen(agent, args)
  if args.json then
    agent.emitter:listen(output.json)
    return
  end
  agent.emitter:listen(output.say_event)
  if not args.detach then agent.on_log = log_follower(agent, args.plain) end
  if output.is_terminal(2) then agent.on_progress = progress_bar end
end

-- Whether every failure is an answer of the engine that dockrun does not understand.
local function is_protocol_failure(agent)
  local found = false
  for _, task in ipairs(agent.tasks) do
    local protocol = type(task.error) == "table" and task.error.kind == "protocol"
    if task.state == "failed" and not protocol then return false end
    found = found or protocol
  end
  return found
end

local MOST = 5  -- reasons in one sentence

-- The exit code. Says again why tasks failed: that may be long ago, or in an earlier process.
local function verdict(agent, job, ok)
  local failures = agent:failures(job.name)
  if ok and #failures == 0 then return 0 end
  if #failures == 0 then return 1 end
  local left = #failures - MOST
  local reasons = table.concat(failures, "; ", 1, math.min(#failures, MOST))
  output.say("error", ("job '%s' failed: %s%s"):format(job.name, reasons, left > 0 and ("; and %d more tasks"):format(left) or ""))
  return is_protocol_failure(agent) and 3 or 1
end

-- Deploys the job, then waits for its end.
local function foreground(agent, job, source)
  local deployed, failure = jobs.deploy(agent, job, source)
  local stopped = failure and failure.kind == "stopped"
  if failure and not stopped then
    if #agent.tasks == 0 then return nil, failure end
    output.say("error", tostring(failure))
  end
  jobs.await(agent, job.name, "exited")
  return verdict(agent, job, deployed or stopped)
end

-- Deploys the job, and leaves it as soon as it runs.
local function detached(agent, job, source)
  local ok, err = jobs.deploy(agent, job, source)
  jobs.await(agent, job.name, "running")
  jobs.leave(agent)
  if not ok then return nil, err end
  return verdict(agent, job, true)
end

-- The first Ctrl-C, SIGTERM or SIGHUP stops the job gracefully, the second signal kills it. With `keep_on_hangup`, SIGHUP
-- leaves the job running.
local function interruptible(agent, name, keep_on_hangup, run, ...)
  local ok, code, err = xpcall(run, internal.handler, ...)
  if ok then return code, err end
  if type(code) ~= "table" or code.kind ~= "cancelled" or not agent.held[name] then error(code, 0) end
  runtime.ignore_hangup()
  if keep_on_hangup and code.signal == "SIGHUP" then
    output.say("info", ("%s: left the tasks running; an agent or the next `dockrun run` takes them over"):format(code))
    agent:release()
    return 0
  end
  local done, stopped, why = pcall(function()
    -- Inside, because the next signal may come at once.
    output.say("info", ("%s: stopping job '%s' (press Ctrl-C again to kill it)"):format(code, name))
    return jobs.stop(agent, name, { reason = tostring(code) })
  end)
  if done and not stopped then return nil, why end
  if done then return 130 end
  output.say("warn", ("%s: killing job '%s'"):format(stopped, name))
  local killed
  killed, err = jobs.kill(agent, name)
  return killed and 130 or nil, err
end

return {
  summary = "Run a job and watch it until it ends.",
  define = function(command)
    command:argument("job", "Job file (.lua, .nomad, .hcl, .json).")
    command:flag("-d --detach", "Leave the containers running after their start.")
    command:flag("--keep-on-hangup", "Leave the tasks running if the terminal closes (SIGHUP).")
    command:flag("--plain", "Leave control sequences out of the tasks' output.")
    command:option("--hooks", "Lua file with the operator's hooks."):argname "FILE"
    command:option("--var", "Give the job a variable."):argname "K=V":count "*"
  end,
  run = function(args)
    local vars, err = arguments.variables(args.var)
    if not vars then return nil, dockrun.error("usage", err) end
    local source, job
    source, err = load.read(args.job, { runtime = dockrun })
    if not source then return nil, err end
    source.vars = vars
    job, err = load.source(source, dockrun)
    if not job then return nil, err end
    for _, warning in ipairs(job.warnings) do output.say("warn", ("%s: %s"):format(args.job, warning)) end
    if args.hooks then dockrun.options.hooks = args.hooks end
    local trace = args.verbose and function(call) output.say("debug", ("%s %s"):format(call.method, call.path)) end
    local agent
    agent, err = agents.new(dockrun.options, { trace = trace })
    if not agent then return nil, err end
    local ok
    ok, err = plans.check(job, agent:host())
    if not ok then return nil, err end
    if args.detach then
      local answer
      answer, err = lock.ask(agent, lock.agent, { source = source })
      if err then return nil, err end
      local function list(name) return answer and type(answer[name]) == "table" and answer[name] or {} end
      for _, warning in ipairs(list "warnings") do output.say("warn", tostring(warning)) end
      for _, why in ipairs(list "failures") do output.say("error", tostring(why)) end
      if answer then return #list "failures" == 0 and 0 or 1 end
    end
    agent.on_warning = function(text) output.say("warn", text) end
    listen(agent, args)
    local code
    local run = args.detach and detached or foreground
    code, err = interruptible(agent, job.name, args.keep_on_hangup, run, agent, job, source)
    if not (args.detach or agent.leaving) or code == 130 then agent:close() end
    return code, err
  end,
}
