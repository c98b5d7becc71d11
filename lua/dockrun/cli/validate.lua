local arguments = require "dockrun.arguments"
local dockrun = require "dockrun"
local load = require "dockrun.job.load"
local output = require "dockrun.output"

-- A job for JSON, which has no functions: a hook becomes "function".
local function printable(value)
  if type(value) == "function" then return "function" end
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do copy[key] = printable(item) end
  return copy
end

return {
  summary = "Check job files: every error at once.",
  define = function(command)
    command:argument("files", "Job files (.lua, .nomad, .hcl, .json)."):args "+"
    command:option("--var", "Give the job a variable."):argname "K=V":count "*"
  end,
  run = function(args)
    local vars, why = arguments.variables(args.var)
    if not vars then return nil, dockrun.error("usage", why) end
    local code = 0
    for _, file in ipairs(args.files) do
      local job, err = load.file(file, { vars = vars, options = dockrun.options })
      for _, warning in ipairs(job and job.warnings or {}) do output.say("warn", ("%s: %s"):format(file, warning)) end
      if not job then
        output.say("error", tostring(err))
        code = 2
      elseif args.json then
        output.json(printable(job))
      else
        output.result(("%s: ok (job '%s', %d group%s)"):format(file, job.name, #job.groups, #job.groups == 1 and "" or "s"))
      end
    end
    return code
  end,
}
