-- The cgroups of this host: real groups, real processes, the kernel's own answers.
local cgroup = require "dockrun.core.cgroup"
local uv = require "luv"

local MB = 1024 * 1024

-- What is undone after each example, last first, even of one that failed.
local undo
local function later(fn) undo[#undo + 1] = fn end

describe("cgroup on this host", function()
  before_each(function() undo = {} end)
  after_each(function()
    for i = #undo, 1, -1 do undo[i]() end
  end)

  local LUA = uv.exepath()
  local version = assert(cgroup.version())
  local groups = 0

  local function make(directory)
    assert(uv.fs_mkdir(directory, tonumber("755", 8)))
    later(function()
      for _ = 1, 18000 do -- for 180 s
        if uv.fs_rmdir(directory) then return end
        uv.sleep(10) -- the last process is still on its way out
      end
      error(directory .. " stays busy")
    end)
    return directory
  end

  -- Directories of a new group, by controller: below this process's own in version 1; in version 2, where a group with
  -- processes can have no children with controllers, at the top.
  local function group()
    groups = groups + 1
    local name = ("/dockrun-spec-%d-%d"):format(uv.os_getpid(), groups)
    if version == 2 then
      local control = assert(io.open("/sys/fs/cgroup/cgroup.subtree_control", "w"))
      assert(control:write "+memory +cpu +pids")
      assert(control:close())
      return { unified = make("/sys/fs/cgroup" .. name) }
    end
    local made, directories, own = {}, {}, assert(cgroup.find(uv.os_getpid())).paths
    own.unified = uv.fs_stat "/sys/fs/cgroup/unified/cgroup.procs" and "/sys/fs/cgroup/unified"
    for _, controller in ipairs { "memory", "cpu", "cpuacct", "pids", "unified" } do
      local above = own[controller]
      if above and not made[uv.fs_realpath(above)] then
        made[uv.fs_realpath(above)] = true -- cpu and cpuacct may be one
        directories[controller] = make(above .. name)
      end
    end
    return directories
  end

  -- Runs a shell command inside the group: its pid at once, and a function that waits for its end.
  local function run(directories, command)
    local enter = {}
    for _, directory in pairs(directories) do enter[#enter + 1] = ("echo $$ > %s/cgroup.procs; "):format(directory) end
    local pipe = assert(io.popen(("%s echo $$; exec %s 2>&1"):format(table.concat(enter), command)))
    local pid = pipe:read "n"
    local function wait()
      if pipe then pipe:close() end
      pipe = nil
    end
    later(function()
      if pipe then uv.kill(pid, "sigkill") end
      wait()
    end)
    return pid, wait
  end

  it("finds a group and reads what was written", function()
    local pid = run(group(), "sleep 60")
    local found = assert(cgroup.find(pid))
    assert.equal(version, found.version)
    assert.is_true(cgroup.write(found, {
        memory = { limit = 64 * MB, swap_limit = 96 * MB, reservation = 32 * MB },
        cpu = { shares = 500, quota = 20000, period = 50000 },
        pids = { limit = 33 },
      }))
    local stat = assert(cgroup.read(pid))
    assert.same({ 64 * MB, 96 * MB, 32 * MB, 20000, 50000, 33 }, {
      stat.memory.limit, stat.memory.swap_limit, stat.memory.reservation, stat.cpu.quota, stat.cpu.period, stat.pids.limit,
    })
    assert.equal(version == 1 and 500 or cgroup.weight_from_shares(500), stat.cpu.shares or stat.cpu.weight)
    assert.equal(1, stat.pids.current)
    assert.equal(0, stat.memory.oom_kills)
    assert.is_true(stat.memory.peak >= stat.memory.usage and stat.memory.usage > 0)
  end)

  it("raises and lowers memory and swap together, from any limit to any other", function()
    local pid = run(group(), "sleep 60")
    for _, limits in ipairs { { 64, 64 }, { 256, 512 }, { 128, 256 }, { 300, 300 }, { 100, 400 }, { 32, 32 } } do
      assert.is_true(cgroup.write(pid, { memory = { limit = limits[1] * MB, swap_limit = limits[2] * MB } }))
      local memory = cgroup.read(pid).memory
      assert.same(limits, { memory.limit // MB, memory.swap_limit // MB })
    end
    assert.is_true(cgroup.write(pid, { memory = { limit = -1, swap_limit = -1 }, cpu = { quota = -1 }, pids = { limit = -1 } }))
    local stat = cgroup.read(pid)
    assert.same({}, { stat.memory.limit, stat.memory.swap_limit, stat.cpu.quota, stat.pids.limit })
  end)

  it("counts the kills of a process that allocates beyond its limit", function()
    local directories = group()
    local pid = run(directories, "sleep 60")
    assert.is_true(cgroup.write(pid, { memory = { limit = 16 * MB, swap_limit = 16 * MB } }))
    local _, wait = run(directories, ([['%s' -e 'for _ = 1, 64 do _G[{}] = ("x"):rep(1048576) end']]):format(LUA))
    wait()
    local stat = assert(cgroup.read(pid))
    assert.is_true(stat.memory.oom_kills >= 1)
    assert.is_true(stat.memory.peak > 15 * MB)
  end)

  it("counts the time that a process over its quota is held back", function()
    local pid = run(group(), ("'%s' -e 'while true do end'"):format(LUA))
    assert.is_true(cgroup.write(pid, { cpu = { quota = 5000, period = 50000 } }))
    local before = assert(cgroup.read(pid)).cpu
    uv.sleep(600)
    local after = assert(cgroup.read(pid)).cpu
    local used = after.usage - before.usage
    assert.is_true(used > 0.01 and used < 0.3, ("%.3f s used of 0.6 at a tenth of a core"):format(used))
    assert.is_true(after.throttled > before.throttled)
    assert.is_true(after.throttled_periods > before.throttled_periods)
    assert.is_true(after.periods >= after.throttled_periods)
  end)

  it("has the pressure of a group where the kernel keeps it", function()
    local directories = group()
    local pid = run(directories, "sleep 60")
    local pressure = assert(cgroup.read(pid)).pressure
    if directories.unified and uv.fs_stat(directories.unified .. "/memory.pressure") then
      assert.is_true(pressure.memory.some.total >= 0 and pressure.memory.full.avg10 >= 0)
    else
      assert.is_nil(pressure)
    end
  end)

  it("says which file the kernel refused, and why", function()
    local directories = group()
    local found = { version = version, path = directories.unified, paths = { memory = directories.memory } }
    local ok, err = cgroup.write(found, { pids = { limit = 10 }, memory = { limit = 64 * MB }, cpuset = "4095" })
    assert.is_nil(ok)
    assert.equal("system", err.kind)
    if version == 1 then
      assert.equal("cannot write '10' to pids.max (its controller is off): No such file or directory", tostring(err))
    else
      assert.matches("^cannot write '4095' to " .. directories.unified:gsub("%p", "%%%0") .. "/cpuset%.cpus", tostring(err))
    end
    assert.equal(64 * MB, cgroup.read(found).memory.limit)
  end)

  -- What only version 1 is strict about.
  if version == 1 then
    it("refuses a memory limit above the swap limit in force, before the kernel does", function()
      local pid = run(group(), "sleep 60")
      assert.is_true(cgroup.write(pid, { memory = { limit = 64 * MB, swap_limit = 64 * MB } }))
      local ok, err = cgroup.write(pid, { memory = { limit = 128 * MB } })
      assert.is_nil(ok)
      assert.matches("67108864 is less than memory.limit of 134217728", tostring(err), 1, true)
    end)

    it("keeps quota per period below the parent's while it changes both", function()
      local parent = group().cpu
      local child = { version = 1, paths = { cpu = make(parent .. "/child") } }
      assert.is_true(cgroup.write({ version = 1, paths = { cpu = parent } }, { cpu = { quota = 20000, period = 100000 } }))
      for _, period in ipairs { 50000, 10000, 100000 } do
        assert.is_true(cgroup.write(child, { cpu = { quota = period // 5, period = period } }))
        assert.same({ period // 5, period }, { cgroup.read(child).cpu.quota, cgroup.read(child).cpu.period })
      end
      local ok, err = cgroup.write(child, { cpu = { quota = 50000, period = 100000 } })
      assert.is_nil(ok)
      assert.matches("^cannot write '50000' to /.*/child/cpu.cfs_quota_us: Invalid argument$", tostring(err))
    end)
  end
end)
