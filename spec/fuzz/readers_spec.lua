-- A short run of the fuzzer with every suite; spec/fuzz/run.lua is the long one.
local check = require "spec.fuzz.check"

local function cases(from, to, reader)
  for seed = from, to do
    local failure = check.case(seed, reader)
    if failure then
      error(("build/release/dockrun spec/fuzz/run.lua --cases 1 --seed %d: %s: %s"):format(seed, failure.format, failure.message), 0)
    end
  end
end

describe("whatever a job file holds", function()
  it("it is one job or the same errors in every language, and never a crash", function() cases(1, 200) end)

  for _, reader in ipairs(check.readers) do
    it("it is a job, or errors with their places, if it is read as " .. reader, function() cases(100001, 100060, reader) end)
  end

  it("it is read in time proportional to its length", function() cases(5660, 5660, "hcl") end)  -- a key of 20,000 bytes
end)
