local duration = require "dockrun.job.duration"

describe("a duration", function()
  for _, case in ipairs {
    { "1m30s", 90 }, { "300ms", 0.3 }, { "1h", 3600 }, { "1.5h", 5400 }, { "2h45m", 9900 }, { "0", 0 }, { "0s", 0 },
    { "1us", 1e-6 }, { "1µs", 1e-6 }, { "1μs", 1e-6 }, { "5ns", 5e-9 }, { ".5s", 0.5 }, { "1.s", 1 }, { "90", 90 }, { 90, 90 },
    { 0.25, 0.25 }, { 2.0, 2 },
  } do
    local text, seconds = table.unpack(case)
    it(("may be %s"):format(text), function() assert.equal(seconds, (assert(duration.parse(text)))) end)
  end

  it("is a whole number where it can be", function() assert.equal("integer", math.type((duration.parse "1500ms1500ms"))) end)

  for _, text in ipairs { "", "s", "5 minutes", "1m ", "1d", "m5", "1m30", "1..5s", "--1s", "1e3s", "5S" } do
    it(("is not %q"):format(text), function()
      local seconds, why = duration.parse(text)
      assert.is_nil(seconds)
      assert.equal(("must be a duration such as '1m30s' or a number of seconds, got '%s'"):format(text), why)
    end)
  end

  for _, value in ipairs { -1, "-1", 1e300, 0 / 0, math.huge, "9999999h" } do
    it(("is not %s: out of range"):format(value), function()
      local seconds, why = duration.parse(value)
      assert.is_nil(seconds)
      assert.truthy(why:find("at least 0 and at most", 1, true))
    end)
  end

  it("is not a table", function() assert.is_nil((duration.parse {})) end)
end)
