local dockrun = require "dockrun"
local output = require "dockrun.output"

return {
  summary = "Print the version.",
  define = function() end,
  run = function(args)
    if args.json then output.json { version = dockrun.version, lua = _VERSION } else output.result("dockrun " .. dockrun.version) end
    return 0
  end,
}
