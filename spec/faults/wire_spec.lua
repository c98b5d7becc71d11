-- Faults on the connection to a real engine, one in each run of a job: the run ends correctly or says clearly why not, and
-- leaves nothing. FAULTS is the number of faults (40), FAULTS_SEED the first seed (1); the spec prints a table of the faults.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local many = require "spec.faults.many"
local wire = require "spec.faults.wire"

describe("a fault on the connection", function()
  local shared, engine
  local options = many.options()

  setup(function()
    shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
  end)

  -- Containers without the name of a job.
  local function count()
    return { networks = #assert(engine:network_list()), volumes = #(assert(engine:volume_list()).Volumes or {}) }
  end

  it(("loses, doubles and leaks nothing, at any point (%d faults)"):format(options.count), function()
    local before = count()
    local counts, failures = wire.many(shared.endpoint, options)
    print("\n" .. many.table(counts))
    assert(#failures == 0, table.concat(failures, "\n"))
    assert.same(before, count())
    for _, action in ipairs(wire.actions) do
      assert.truthy(options.count < 40 or counts[action .. " up"] or counts[action .. " down"], action .. " was never tried")
    end
  end)
end)
