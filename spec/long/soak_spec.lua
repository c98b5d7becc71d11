-- SOAK_MINUTES (30) of spec/faults/soak.lua: memory and descriptors stay constant while tasks restart and the connection has faults.
-- Not with the sanitizers, which keep freed memory.
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
