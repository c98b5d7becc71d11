local dockrun = require "dockrun"
local fingerprint = require "dockrun.driver.fingerprint"
local output = require "dockrun.output"

return {
  summary = "Print this node's attributes.",
  define = function() end,
  run = function(args)
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local attributes = fingerprint.attributes(engine, dockrun.options)
    if args.json then
      output.json(attributes)
      return 0
    end
    local rows = {}
    for name, value in pairs(attributes) do rows[#rows + 1] = { name, tostring(value) } end
    table.sort(rows, function(a, b) return a[1] < b[1] end)
    output.columns({ "ATTRIBUTE", "VALUE" }, rows)
    return 0
  end,
}
