local cgroup = require "dockrun.core.cgroup"
local uv = require "luv"

local MB = 1024 * 1024
local FIXTURE = debug.getinfo(1, "S").source:match "^@(.*/)" .. "fixtures/cgroup2"

local function read_file(path)
  local file = assert(io.open(path))
  local text = file:read "a"
  file:close()
  return (text:gsub("\n$", ""))
end

local function write_file(path, text)
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  assert(file:close())
end

-- What is undone after each example, last first, even of one that failed.
local undo
local function later(fn) undo[#undo + 1] = fn end

-- A tree of files in a temporary directory, from a table of path -> text; with `from`, over a copy of that directory.
local function tree(files, from)
  local directory = assert(uv.fs_mkdtemp "/tmp/dockrun-cgroup-XXXXXX")
  later(function() os.execute("rm -r " .. directory) end)
  if from then assert(os.execute(("cp -r '%s/.' %s"):format(from, directory))) end
  for path, text in pairs(files) do
    assert(os.execute(("mkdir -p %s/%s"):format(directory, path:match "^(.*)/")))
    write_file(directory .. "/" .. path, text)
  end
  return { cgroup = directory .. "/cgroup", proc = directory .. "/proc" }
end

local SCOPE = "cgroup/system.slice/docker-5f7c0d3b1a9e4c62.scope/"

-- The recorded tree of a container on a version 2 host, as process 4242, with some files changed.
local function recorded(changes)
  local files = {}
  for name, text in pairs(changes or {}) do files[SCOPE .. name] = text end
  local root = tree(files, FIXTURE)
  local found = assert(cgroup.find(4242, root))
  return found, function(name) return read_file(found.path .. "/" .. name) end
end

local function mounts(lines)
  local text = { "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw" }
  for i, line in ipairs(lines) do text[i + 1] = ("%d 31 0:%d %s"):format(40 + i, 40 + i, line) end
  return table.concat(text, "\n") .. "\n"
end

local function find_in(membership, mountinfo)
  return cgroup.find(7, tree { ["proc/7/cgroup"] = membership, ["proc/self/mountinfo"] = mounts(mountinfo) })
end

describe("cgroup", function()
  before_each(function() undo = {} end)
  after_each(function()
    for i = #undo, 1, -1 do undo[i]() end
  end)

  describe("finding", function()
    it("follows the mounts, wherever they are, and knows controllers mounted together", function()
      assert.same({
        version = 1,
        paths = {
          memory = "/cg/my memory/docker/ab:cd", cpu = "/cg/cpu,cpuacct/docker/x", cpuacct = "/cg/cpu,cpuacct/docker/x",
          pids = "/cg/pids",
        },
      }, find_in("5:memory:/docker/ab:cd\n4:cpu,cpuacct:/docker/x\n3:pids:/\n2:freezer:/docker/x\n1:name=systemd:/user\n", {
        [[/ /cg/my\040memory rw - cgroup cgroup rw,memory]],
        "/ /cg/cpu,cpuacct rw shared:3 master:1 - cgroup cgroup rw,cpu,cpuacct",
        "/ /cg/pids rw - cgroup cgroup rw,pids",
        "/ /cg/freezer rw - cgroup cgroup rw,freezer",
        "/ /cg/systemd rw - cgroup cgroup rw,name=systemd",
      }))
    end)

    local hybrid = { "/ /cg/memory rw - cgroup cgroup rw,memory", "/ /cg/unified rw - cgroup2 cgroup2 rw" }

    it("counts a hybrid as version 1, and keeps a unified place that is the process's own", function()
      assert.same({ version = 1, paths = { memory = "/cg/memory/a", unified = "/cg/unified/b" } },
        find_in("4:memory:/a\n0::/b\n", hybrid))
      assert.same({ version = 1, paths = { memory = "/cg/memory/a" } }, find_in("4:memory:/a\n0::/\n", hybrid))
    end)

    it("takes the part of the hierarchy that is mounted off the path, as in a container without a cgroup namespace", function()
      local part = { "/docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory" }
      assert.matches("/cgroup/memory$", find_in("4:memory:/docker/abc\n", part).paths.memory)
      assert.matches("/cgroup/memory/child$", find_in("4:memory:/docker/abc/child\n", part).paths.memory)
      for _, outside in ipairs { "/docker/abcd", "/docker", "/../other" } do
        local found, err = find_in("4:memory:" .. outside .. "\n", part)
        assert.is_nil(found)
        assert.matches("is not below any cgroup mount of this process", tostring(err), 1, true)
      end
    end)

    it("finds version 2 by its one mount", function()
      local root = { cgroup = FIXTURE .. "/cgroup", proc = FIXTURE .. "/proc" }
      assert.equal(2, cgroup.version(root))
      assert.same({ version = 2, path = FIXTURE .. "/" .. SCOPE:sub(1, -2) }, cgroup.find(4242, root))
    end)

    it("says that a process is gone", function()
      local pipe = assert(io.popen "echo $$")
      local pid = pipe:read "n"
      pipe:close()
      local found, err = cgroup.find(pid)
      assert.is_nil(found)
      assert.equal(("process %d is gone: there is no /proc/%d/cgroup"):format(pid, pid), tostring(err))
      assert.same({ nil, err }, { cgroup.read(pid) })
      assert.same({ nil, err }, { cgroup.write(pid, { pids = { limit = 10 } }) })
    end)

    it("says that a host has no cgroups", function()
      local version, err = cgroup.version(tree { ["proc/self/mountinfo"] = mounts {} })
      assert.is_nil(version)
      assert.matches("has no cgroup mount; mount cgroup2 at /sys/fs/cgroup", tostring(err), 1, true)
    end)

    it("refuses a pid below 1 and a table that is no cgroup", function()
      assert.error_matches(function() cgroup.find(0) end, "a pid is at least 1", 1, true)
      assert.error_matches(function() cgroup.read {} end, "a pid or what cgroup.find returned is expected", 1, true)
    end)
  end)

  describe("reading version 2", function()
    it("gives bytes, seconds and microseconds under one set of names", function()
      assert.same({
        version = 2,
        memory = {
          usage = 100 * MB, peak = 150 * MB, limit = 256 * MB, swap_limit = 256 * MB, reservation = 64 * MB,
          inactive_file = 6 * MB, oom_kills = 2,
        },
        cpu = { usage = 1.5, throttled = 0.25, throttled_periods = 10, periods = 40, weight = 39, quota = 50000, period = 100000 },
        pids = { current = 7 },
        io = {
          { device = "8:0", read_bytes = 4096, write_bytes = 8192, reads = 1, writes = 2 },
          { device = "253:1", read_bytes = 0, write_bytes = 0, reads = 0, writes = 0 },
          { device = "254:0", read_bytes = 512, write_bytes = 0, reads = 1, writes = 0 },
        },
        pressure = {
          cpu = {
            some = { avg10 = 1.5, avg60 = 0.75, avg300 = 0.25, total = 2.5 },
            full = { avg10 = 0.5, avg60 = 0.25, avg300 = 0.05, total = 0.5 },
          },
          memory = {
            some = { avg10 = 0, avg60 = 0, avg300 = 0, total = 0 },
            full = { avg10 = 0, avg60 = 0, avg300 = 0, total = 0 },
          },
          io = { some = { avg10 = 0.1, avg60 = 0, avg300 = 0, total = 0.001 } },
        },
      }, cgroup.read((recorded())))
    end)

    it("leaves out limits that are not set", function()
      local stat = assert(cgroup.read((recorded { ["memory.max"] = "max\n", ["memory.low"] = "0\n", ["cpu.max"] = "max 50000\n" })))
      assert.is_nil(stat.memory.limit)
      assert.is_nil(stat.memory.swap_limit)
      assert.is_nil(stat.memory.reservation)
      assert.is_nil(stat.cpu.quota)
      assert.equal(50000, stat.cpu.period)
    end)

    it("leaves out what the kernel does not have", function()
      local found = recorded()
      for _, name in ipairs { "memory.peak", "io.stat", "cpu.pressure", "memory.pressure", "io.pressure", "pids.current", "pids.max" } do
        assert(os.remove(found.path .. "/" .. name))
      end
      local stat = assert(cgroup.read(found))
      assert.is_nil(stat.memory.peak)
      assert.equal(100 * MB, stat.memory.usage)
      assert.same({}, stat.pids)
      assert.is_nil(stat.io)
      assert.is_nil(stat.pressure)
    end)

    it("passes over figures of I/O that it does not know", function()
      local stat = assert(cgroup.read((recorded { ["io.stat"] = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 cost.vrate=99.50 depth=max\n" })))
      assert.same({ { device = "8:0", read_bytes = 1, write_bytes = 2, reads = 3, writes = 4 } }, stat.io)
    end)

    for _, case in ipairs {
      { "memory.current", "much\n", "at 'much" },
      { "memory.current", "", "at '(end of file)'" },
      { "memory.max", "maximal\n", "at 'maximal" },
      { "memory.events", "oom_kill x\n", "at 'x" },
      { "cpu.stat", "usage_usec 12a\n", "at '12a" },
      { "cpu.max", "max long\n", "at 'long" },
      { "io.stat", "8:0 rbytes=x\n", "at 'x'" },
      { "io.stat", "rbytes=1\n", "at '1'" },
      { "cpu.pressure", "some avg10=x\n", "at 'avg10=x" },
    } do
      local file, text, at = table.unpack(case)
      it(("names %s where it holds %q"):format(file, text), function()
        local found = recorded { [file] = text }
        local stat, err = cgroup.read(found)
        assert.is_nil(stat)
        assert.equal("protocol", err.kind)
        assert.matches(("%s/%s does not hold what the kernel puts there: a number is expected "):format(found.path, file) .. at,
          tostring(err), 1, true)
      end)
    end

    it("says that the group is gone", function()
      local found = recorded()
      os.execute("rm -r " .. found.path)
      local stat, err = cgroup.read(found)
      assert.is_nil(stat)
      assert.equal(("the cgroup %s is gone; its last process has ended"):format(found.path), tostring(err))
    end)
  end)

  describe("reading version 1", function()
    it("takes both the recursive and the plain figures of I/O, by device", function()
      local bytes = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\n8:0 Total 12288\n253:0 Read 1\n253:0 Write 2\nTotal 12291\n"
      local root = tree {
        ["proc/7/cgroup"] = "7:blkio:/\n",
        ["proc/self/mountinfo"] = mounts { "/ /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio" },
        ["cgroup/blkio/blkio.throttle.io_service_bytes"] = bytes,
        ["cgroup/blkio/blkio.throttle.io_serviced_recursive"] = "253:0 Read 3\n253:0 Write 4\nTotal 7\n",
      }
      assert.same({
        { device = "8:0", read_bytes = 4096, write_bytes = 8192, reads = 0, writes = 0 },
        { device = "253:0", read_bytes = 1, write_bytes = 2, reads = 3, writes = 4 },
      }, cgroup.read(7, root).io)
    end)
  end)

  describe("writing version 2", function()
    it("turns limits into its files", function()
      local found, file = recorded()
      assert.is_true(cgroup.write(found, {
        memory = { limit = 512 * MB, swap_limit = 768 * MB, reservation = 128 * MB },
        cpu = { shares = 1024, quota = 20000, period = 50000 },
        pids = { limit = 64 },
        cpuset = "0-1",
      }))
      assert.same({ "536870912", "268435456", "134217728", "39", "20000 50000", "64", "0-1" }, {
        file "memory.max", file "memory.swap.max", file "memory.low", file "cpu.weight", file "cpu.max", file "pids.max",
        file "cpuset.cpus",
      })
    end)

    it("lifts limits", function()
      local found, file = recorded()
      assert.is_true(cgroup.write(found, {
        memory = { limit = -1, swap_limit = -1, reservation = -1 }, cpu = { quota = -1 }, pids = { limit = -1 },
      }))
      assert.same({ "max", "max", "0", "max", "max" },
        { file "memory.max", file "memory.swap.max", file "memory.low", file "cpu.max", file "pids.max" })
    end)

    it("leaves alone what is not named", function()
      local found, file = recorded()
      assert.is_true(cgroup.write(found, { cpu = { period = 20000 } }))
      assert.is_true(cgroup.write(found, { memory = { swap_limit = 300 * MB } }))
      assert.same({ "50000 20000", "268435456", tostring(44 * MB) },
        { file "cpu.max", file "memory.max", file "memory.swap.max" })
      assert.is_true(cgroup.write(found, { cpu = { weight = 500 } }))
      assert.is_true(cgroup.write(found, {}))
      assert.equal("500", file "cpu.weight")
    end)

    it("changes nothing where swap is asked for and not counted", function()
      local found, file = recorded()
      os.remove(found.path .. "/memory.swap.max")
      local ok, err = cgroup.write(found, { memory = { limit = 512 * MB, swap_limit = 512 * MB } })
      assert.is_nil(ok)
      assert.equal("system", err.kind)
      assert.matches("/memory.swap.max (the kernel counts no swap; boot it with swapaccount=1)", tostring(err), 1, true)
      assert.equal("268435456", file "memory.max")
    end)
  end)

  for _, case in ipairs {
    { { memory = { limit = 4095 } }, "memory.limit must be within 4096 to 9223372036854710271, or -1 for no limit, got 4095" },
    { { memory = { limit = 0 } }, "memory.limit must be within 4096 to" },
    { { cpu = { shares = 1 } }, "cpu.shares must be within 2 to 262144, got 1" },
    { { cpu = { weight = 10001 } }, "cpu.weight must be within 1 to 10000, got 10001" },
    { { cpu = { quota = 999 } }, "cpu.quota must be within 1000 to 17592186044415, or -1 for no limit, got 999" },
    { { cpu = { period = 1000001 } }, "cpu.period must be within 1000 to 1000000, got 1000001" },
    { { cpu = { period = -1 } }, "cpu.period must be within 1000 to 1000000, got -1" },
    { { pids = { limit = 0 } }, "pids.limit must be within 1 to 4194304, or -1 for no limit, got 0" },
    { { pids = { limit = 1.5 } }, "pids.limit: expected a whole number, got 1.5" },
    { { pids = { limit = "10" } }, "pids.limit: expected a whole number, got 10" },
    { { cpuset = "0;1" }, "cpuset must be a list of CPUs such as '0-2,7', got '0;1'" },
    { { cpuset = "" }, "cpuset must be a list of CPUs" },
    { { cpuset = 0 }, "cpuset must be a list of CPUs" },
    { { cpu = { shares = 2, weight = 1 } }, "cpu.shares and cpu.weight are one limit in two units" },
    { { memory = { limit = 2 * MB, swap_limit = MB } }, "1048576 is less than memory.limit of 2097152" },
    { { memory = { limit = -1, swap_limit = MB } }, "1048576 is less than memory.limit of -1 (-1 is no limit)" },
    { { memory = { swap_limit = MB } }, "1048576 is less than memory.limit of 268435456" },
    { { memory = { limit = MB, reservation = 2 * MB } }, "memory.reservation (2097152) must not be above memory.limit (1048576)" },
    { { memory = { memroy = MB } }, "unknown limit 'memory.memroy'; expected memory.limit, memory.swap_limit" },
    { { memory = MB }, "memory: expected a table of limits, got 1048576" },
    { { { MB } }, "unknown limit '(not a name).(not a name)'" },
  } do
    local limits, message = table.unpack(case)
    it("refuses, before writing anything: " .. message, function()
      local found, file = recorded()
      if limits.memory == nil then limits.memory = { reservation = 5 * MB } end
      local ok, err = cgroup.write(found, limits)
      assert.is_nil(ok)
      assert.equal("invalid", err.kind)
      assert.matches(message, tostring(err), 1, true)
      assert.equal("67108864", file "memory.low")
    end)
  end

  describe("converting", function()
    for _, case in ipairs {
      { "weight_from_shares", { 2 }, 1 }, { "weight_from_shares", { 1024 }, 39 }, { "weight_from_shares", { 262144 }, 10000 },
      { "shares_from_weight", { 1 }, 2 }, { "shares_from_weight", { 100 }, 2597 }, { "shares_from_weight", { 10000 }, 262144 },
    } do
      local name, arguments, result = table.unpack(case)
      it(("%s(%s) is %d"):format(name, table.concat(arguments, ", "), result), function()
        local value = assert(cgroup[name](table.unpack(arguments)))
        assert.equal("integer", math.type(value))
        assert.equal(result, value)
      end)
    end

    for _, case in ipairs {
      { "weight_from_shares", { 262145 }, "cpu.shares must be within 2 to 262144, got 262145" },
      { "shares_from_weight", { 0 }, "cpu.weight must be within 1 to 10000, got 0" },
    } do
      local name, arguments, message = table.unpack(case)
      it(("%s(%s) is refused"):format(name, table.concat(arguments, ", ")), function()
        local value, err = cgroup[name](table.unpack(arguments))
        assert.is_nil(value)
        assert.equal("invalid", err.kind)
        assert.matches(message, tostring(err), 1, true)
      end)
    end

    it("goes from shares to weight and back without rising", function()
      for shares = 2, 262144, 997 do
        local again = cgroup.shares_from_weight(cgroup.weight_from_shares(shares))
        assert.is_true(again <= shares and shares - again < 54)
      end
    end)
  end)
end)
