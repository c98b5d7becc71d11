-- SOAK_MINUTES (30) of spec/faults/soak.lua: memory and descriptors stay flat while tasks restart and the wire is at fault.
-- Not under the sanitizers, which keep what was freed.
local many = require "spec.faults.many"
local process = require "spec.process"

if many.is_sanitized() then return end

local MINUTES = tonumber(os.getenv "SOAK_MINUTES") or 30

describe("a long run", function()
  it(("keeps its tasks, its memory and its descriptors for %g minutes of faults"):format(MINUTES), function()
    local result = process.run({ "spec/faults/soak.lua", "--minutes", tostring(MINUTES) }, { timeout = MINUTES * 60 + 1200 })
    print("\n" .. result.stdout)
    assert.equal(0, result.code, result.stdout .. result.stderr)
  end)
end)
