-- Faults on the wire to a real engine, one to each run of a job: it comes to an end that is right, or says clearly why not,
-- and leaves nothing. So many as FAULTS says (40), from seed FAULTS_SEED (1) on; the table of what was tried is printed.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local many = require "spec.faults.many"
local wire = require "spec.faults.wire"

describe("a fault on the wire", function()
  local shared, engine
  local options = many.options()

  setup(function()
    shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
  end)

  -- What no job's name is on.
  local function count()
    return { networks = #assert(engine:network_list()), volumes = #(assert(engine:volume_list()).Volumes or {}) }
  end

  it(("loses, doubles and leaks nothing, wherever it comes (%d of them)"):format(options.count), function()
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
