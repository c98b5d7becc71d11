-- What containers use: on trees of files such as kernels have, and as a process sees it that sees version 2 alone.
local cgroup = require "dockrun.core.cgroup"
local container_cgroup = require "dockrun.driver.cgroup"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"
local stats = require "dockrun.driver.stats"
local uv = require "luv"

local ID = ("0123456789abcdef"):rep(4)

describe("the cgroup of a container", function()
  local directory

  before_each(function() directory = assert(uv.fs_mkdtemp "/tmp/dockrun-usage-XXXXXX") end)
  after_each(function() os.execute("rm -r " .. directory) end)

  local function write(path, text)
    assert(os.execute(("mkdir -p %s/%s"):format(directory, path:match "^(.*)/")))
    local file <close> = assert(io.open(directory .. "/" .. path, "w"))
    file:write(text)
  end

  -- A host whose container, process 7, is in the groups that /proc/7/cgroup says.
  local function host(membership, ...)
    local mounts = {}
    for i, line in ipairs { ... } do mounts[i] = ("%d 31 0:%d %s\n"):format(40 + i, 40 + i, line) end
    write("proc/self/mountinfo", table.concat(mounts))
    write("proc/7/cgroup", membership)
    local engine = { container_inspect = function() return { Id = ID, State = { Pid = 7 } } end }
    return engine, { cgroup = directory .. "/cgroup", proc = directory .. "/proc" }
  end

  local V2 = "/ /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
  local MEMORY = "/ /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
  local CPU = "/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"

  for what, membership in pairs {
    ["the host's root group"] = "0::/\n", ["the engine's group"] = "0::/system.slice/docker.service\n",
    ["a group of another container"] = "0::/docker/" .. ID:reverse() .. "\n",
  } do
    it("is not " .. what, function()
      local engine, root = host(membership, V2)
      local place = "cgroup" .. membership:match "0::(.-)/?\n"
      write(place .. "/memory.current", "1048576\n")
      write(place .. "/cpu.stat", "usage_usec 5000000\n")
      local group, running = container_cgroup.of(engine, ID, root)
      assert.is_nil(group)
      assert.is_true(running)
      local reading = stats.new(engine, root):read(ID)
      assert.same({}, stats.summarise(reading, reading))
    end)
  end

  for name, below in pairs { ["docker-" .. ID .. ".scope"] = "/init.scope", ["libpod-" .. ID .. ".scope"] = "/container", [ID] = "" } do
    it(("is '%s', with '%s' below it"):format(name:gsub(ID, "ID"), below), function()
      local engine, root = host(("0::/machine.slice/%s%s\n"):format(name, below), V2)
      assert.same({ version = 2, path = ("%s/cgroup/machine.slice/%s"):format(directory, name) }, (container_cgroup.of(engine, ID, root)))
    end)
  end

  it("has no part in a controller of version 1 in which the container is in a group of the host", function()
    local engine, root = host(("2:memory:/\n1:cpu:/docker/%s\n"):format(ID), MEMORY, CPU)
    write("cgroup/memory/memory.usage_in_bytes", "1048576\n")
    write(("cgroup/cpu/docker/%s/cpu.stat"):format(ID), "throttled_time 2000000000\n")
    local now = stats.new(engine, root):read(ID)
    assert.same({ throttled_seconds = 2.0 }, stats.summarise(now))
  end)

  it("gives what there is of it, and pressure", function()
    local engine, root = host(("0::/docker/%s\n"):format(ID), V2)
    local place = ("cgroup/docker/%s/"):format(ID)
    write(place .. "cpu.stat", "usage_usec 5000000\n")
    write(place .. "cpu.pressure", "some avg10=12.50 avg60=1.00 avg300=0.25 total=2500000\n")
    local reader = stats.new(engine, root)
    local before = reader:read(ID)
    before.at = before.at - 1
    write(place .. "cpu.stat", "usage_usec 5500000\n")
    local now = reader:read(ID)
    now.at = before.at + 1
    local row = stats.summarise(now, before)
    assert.is_near(50, row.cpu_percent, 0.01)
    row.cpu_percent = nil
    assert.same({ pressure = { cpu = { some = { avg10 = 12.5, avg60 = 1, avg300 = 0.25, total = 2.5 } } } }, row)
  end)

  it("is gone as soon as one of its directories is", function()
    local engine, root = host(("2:memory:/docker/%s\n1:cpu:/docker/%s\n"):format(ID, ID), MEMORY, CPU)
    write(("cgroup/memory/docker/%s/memory.usage_in_bytes"):format(ID), "1\n")
    local stat, err = cgroup.read(container_cgroup.of(engine, ID, root))
    assert.is_nil(stat)
    assert.matches(("/cgroup/cpu/docker/%s is gone"):format(ID), tostring(err), 1, true)
    assert.is_nil(stats.new(engine, root):read(ID))
  end)
end)

if cgroup.version() ~= 1 then return end

describe("stats with only a version 2 tree in sight, whose controllers are off", function()
  local V2_ONLY = [[umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"]]
  local counts_pressure = uv.fs_stat "/sys/fs/cgroup/unified/cpu.stat" and uv.fs_stat "/proc/pressure/cpu"

  it("shows '-' for what a container's own group lacks", function()
    local engine, endpoint = engines.ready()
    local name = jobs.unique "usage"
    local job <close> = jobs.start(endpoint, jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = job.file
    job:wait_for '"event":"started"'
    local function run_stats(...)
      local result = process.run({ "-m", "sh", "-c", V2_ONLY, process.program, "--endpoint", endpoint, "--state-dir",
        jobs.state_dir, "stats", name, ... }, { program = "unshare" })
      assert.equal(0, result.code, result.stderr)
      return result.stdout
    end
    local shares = counts_pressure and "[%d/]+" or "%-"
    assert.matches(name:gsub("%p", "%%%0") .. "%S+ +%S+ +%-  +%-  +%-  +%-  +%-  +" .. shares .. "\n$", run_stats())
    local row = dockrun.json.decode(run_stats "--json").tasks[1]
    for _, key in ipairs { "memory", "memory_limit", "pids", "oom_kills", "throttled_seconds" } do assert.is_nil(row[key]) end
    if counts_pressure then assert.is_number(row.pressure.cpu.some.avg10 + row.pressure.memory.full.total) end
    job:kill "SIGINT"
    job:wait()
    assert.same({}, jobs.containers(engine, name))
  end)
end)
