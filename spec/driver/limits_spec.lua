local limits = require "dockrun.driver.limits"
local tables = require "dockrun.util.tables"

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

-- A task as the schema makes one, with other resources and options.
local function task(resources, config)
  local default = { config = { image = "x", cpu_hard_limit = false, cpu_cfs_period = 100000 }, resources = { cpu = 100, memory = 300 } }
  return { name = "t", config = tables.merge(default.config, config), resources = tables.merge(default.resources, resources) }
end

describe("limits", function()
  local host = { mhz = 4000, cores = 2 }

  for what, case in pairs {
    ["memory and shares"] = { task { cpu = 500, memory = 64 },
      { Memory = 64 << 20, MemorySwap = 64 << 20, CpuShares = 500 } },
    ["memory that is reserved, and a hard limit"] = { task({ memory = 64 }, { memory_hard_limit = 128 }),
      { Memory = 128 << 20, MemorySwap = 128 << 20, MemoryReservation = 64 << 20, CpuShares = 100 } },
    ["a quota, CPUs and processes"] = { task({ cpu = 1000 }, { cpu_hard_limit = true, cpuset_cpus = "0-1", pids_limit = 7 }),
      { Memory = 300 << 20, MemorySwap = 300 << 20, CpuShares = 1000, CpuQuota = 50000, CpuPeriod = 100000, CpusetCpus = "0-1",
        PidsLimit = 7 } },
    ["a weight of I/O"] = { task { io = { weight = 50 } },
      { Memory = 300 << 20, MemorySwap = 300 << 20, CpuShares = 100, BlkioWeight = 50 } },
  } do
    it("go to the engine and come back: " .. what, function()
      local wanted, engine = table.unpack(case)
      assert.same(engine, limits.to_engine(wanted, host))
      assert.same(wanted, limits.from_engine(task(), engine, wanted))
    end)
  end

  it("of a running container are the engine's, not those that it was made with", function()
    local now = limits.from_engine(task { memory = 64 }, { Memory = 96 << 20, CpuShares = 100 }, task { memory = 64 })
    assert.equal(96, now.resources.memory)
  end)

  it("are taken away by an update if the engine can do that", function()
    local body = limits.update_body(task())
    assert.same({ -1, 0 }, { body.CpuQuota, body.MemoryReservation })
    assert.is_true(limits.can_update("resources.memory", 5))
    assert.is_true(limits.can_update("config.pids_limit", 5))
    assert.is_false(limits.can_update("config.pids_limit", nil))
    assert.is_false(limits.can_update("config.image", "y"))
  end)
end)
