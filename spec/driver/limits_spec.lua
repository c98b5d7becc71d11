local limits = require "dockrun.driver.limits"

describe("MHz", function()
  it("are shares, within what the kernel accepts", function()
    for mhz, shares in pairs { [1] = 2, [2] = 2, [500] = 500, [262144] = 262144, [262145] = 262144 } do
      assert.equal(shares, limits.shares_from_mhz(mhz))
    end
  end)

  for _, case in ipairs {
    { 1000, 4000, 2, 100000, 50000 }, { 4000, 4000, 2, 100000, 200000 }, { 100, 9600, 4, 100000, 4164 }, { 333, 1000, 8, 1000, 2664 },
    { 5000, 4000, 2, 100000, nil, "cpu must be within 1 and the host's 4000 MHz, got 5000" },
    { 100, 4000, 2, 999, nil, "cpu_cfs_period must be within 1000 to 1000000, got 999" },
    { 10, 4000, 2, 100000, nil, "is a quota of 500 us per 100000 us, and the kernel accepts at least 1000" },
  } do
    local mhz, total, cores, period, expected, message = table.unpack(case, 1, 6)
    it(("are a quota: %d of %d on %d cores, per %d us"):format(mhz, total, cores, period), function()
      local quota, err = limits.quota_from_mhz(mhz, { mhz = total, cores = cores }, period)
      assert.equal(expected, quota)
      if not message then return end
      assert.equal("invalid", err.kind)
      assert.matches(message, tostring(err), 1, true)
    end)
  end
end)
