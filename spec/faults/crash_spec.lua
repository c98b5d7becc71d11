-- dockrun killed at any point, one to each job, and what the next process makes of it. So many as FAULTS says (40), from seed
-- FAULTS_SEED (1) on; the table of what was tried is printed.
local crash = require "spec.faults.crash"
local engines = require "spec.engine"
local many = require "spec.faults.many"

describe("a kill", function()
  local options = many.options()

  it(("loses, doubles and leaks nothing, wherever it comes (%d of them)"):format(options.count), function()
    local shared = engines.shared()
    engines.image(shared, "busybox:1")
    local counts, failures = crash.many(shared.endpoint, options)
    print("\n" .. many.table(counts))
    assert(#failures == 0, table.concat(failures, "\n"))
  end)
end)
