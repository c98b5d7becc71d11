local time = require "dockrun.util.time"

describe("moments as text", function()
  for text, seconds in pairs {
    ["2023-11-14T22:13:20Z"] = 1700000000, ["2023-11-14T23:13:20.5+01:00"] = 1700000000, ["1970-01-01T00:00:00Z"] = 0,
    ["2024-02-29T00:00:00Z"] = 1709164800, ["2024-03-01T00:00:00Z"] = 1709251200, ["0001-01-01T00:00:00Z"] = -62135596800,
  } do
    it("are read: " .. text, function() assert.equal(seconds, time.seconds(text)) end)
  end

  it("are refused if they are none", function()
    for _, text in ipairs { "", "now", "2023-11-14", "1700000000" } do assert.is_nil(time.seconds(text)) end
  end)

  it("are written with nanoseconds, and read back", function()
    assert.equal("2023-11-14T22:13:20.000000005Z", time.format(1700000000, 5))
    assert.is_true(math.abs(time.seconds(time.format()) - time.now()) < 5)
  end)
end)
