local options = require "dockrun.options"
local output = require "dockrun.cli.output"

local function describe_options()
  local rows = {}
  for i, row in ipairs(options.rows) do rows[i] = { row.name, row.type, tostring(options.default(row)), row.doc } end
  output.columns({ "OPTION", "TYPE", "DEFAULT", "MEANING" }, rows)
end

return {
  summary = "Explain a command, or the options.",
  define = function(command)
    command:argument("topic", "A command's name, or 'options'."):args "?"
  end,
  run = function(args, parser)
    if args.topic == "options" then
      describe_options()
      return 0
    end
    if not args.topic then
      output.result(parser:get_help())
      return 0
    end
    parser:pparse { args.topic, "--help" }  -- prints it and exits
    output.say("error", ("no help on '%s'"):format(args.topic))
    return 2
  end,
}
