local agents = require "dockrun.agent"
local arguments = require "dockrun.arguments"
local dockrun = require "dockrun"
local jobs = require "dockrun.agent.jobs"
local load = require "dockrun.job.load"
local output = require "dockrun.output"

-- The sign before a task, and its colour.
local signs = {
  create = { "+", "32" }, in_place = { "~", "33" }, replace = { "-/+", "31" }, stop = { "-", "31" }, none = { " ", "90" },
}
local words = {
  create = "create", in_place = "update in place", replace = "replace", stop = "stop", none = "unchanged",
}

local function show(value)
  if value == nil then return "(none)" end
  if type(value) == "table" then return dockrun.json.encode(value) end
  return type(value) == "string" and ("%q"):format(value):gsub("\\\n", "\\n") or tostring(value)
end

local function show_task(change)
  local sign, color = table.unpack(signs[change.action])
  local name = ("%s[%d].%s"):format(change.group, change.index, change.task)
  output.result(output.paint(("%-3s %s: %s%s"):format(sign, name, words[change.action],
    change.reason and (" (" .. change.reason .. ")") or ""), color))
  for _, field in ipairs(change.fields) do
    local forces = field.forces == "replace" and change.action == "replace" and "  forces replacement" or ""
    local old, new = output.paint(show(field.old), "31"), output.paint(show(field.new), "32")
    output.result(("      %s: %s -> %s%s"):format(field.path, old, new, forces))
  end
end

return {
  summary = "Show what `run` would do, and change nothing.",
  define = function(command)
    command:argument("job", "Job file (.lua, .nomad, .hcl, .json).")
    command:option("--var", "Give the job a variable."):argname "K=V":count "*"
  end,
  run = function(args)
    local vars, err = arguments.variables(args.var)
    if not vars then return nil, dockrun.error("usage", err) end
    local job
    job, err = load.file(args.job, { vars = vars, runtime = dockrun })
    if not job then return nil, err end
    for _, warning in ipairs(job.warnings) do output.say("warn", ("%s: %s"):format(args.job, warning)) end
    local agent
    agent, err = agents.new(dockrun.options, { readonly = true })
    if not agent then return nil, err end
    local plan
    plan, err = jobs.plan(agent, job)
    if not plan then return nil, err end
    local changes = false
    for _, change in ipairs(plan.changes) do changes = changes or change.action ~= "none" end
    if args.json then
      output.json(plan)
    else
      for _, change in ipairs(plan.changes) do show_task(change) end
      if not changes then output.result(("job '%s' is up to date"):format(job.name)) end
    end
    return changes and 1 or 0
  end,
}
