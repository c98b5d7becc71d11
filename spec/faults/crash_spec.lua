-- dockrun is killed at any point, once for each job, and the next process recovers. FAULTS is the number of kills (40),
-- FAULTS_SEED the first seed (1); the spec prints a table of the kills.
local crash = require "spec.faults.crash"
local engines = require "spec.engine"
local many = require "spec.faults.many"

describe("a kill", function()
  local options = many.options()

  it(("loses, doubles and leaks nothing, at any point (%d kills)"):format(options.count), function()
    local shared = engines.shared()
    engines.image(shared, "busybox:1")
    local counts, failures = crash.many(shared.endpoint, options)
    print("\n" .. many.table(counts))
    assert(#failures == 0, table.concat(failures, "\n"))
  end)
end)
