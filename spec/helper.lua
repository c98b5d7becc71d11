-- Loaded by busted before any spec. Each spec file gets modules of its own, but for those loaded here:
-- there is one runtime, and one engine and one registry serve the whole run.
local busted = require "busted"
require "dockrun"
local engine = require "spec.engine"

busted.subscribe({ "suite", "end" }, function()
  engine.stop_all()
  return nil, true -- the next subscriber's turn
end)
