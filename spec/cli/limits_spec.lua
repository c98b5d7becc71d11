-- Each limit of a running task, changed by another `run` of the job: the plan matches what is done, the engine changes it without
-- a restart if it can, the kernel has the new value, and a new plan is empty.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"

local MB = 1024 * 1024

local JOB = [[
return job %q {
  group "g" {
    restart = { attempts = 0 },
    task "t" {
      config = {
        image = "busybox:1", command = "sleep", args = { "600" }, cpu_hard_limit = var.hard, cpu_cfs_period = var.period,
        cpuset_cpus = var.cpus, memory_hard_limit = var.most, pids_limit = var.pids,
      },
      kill_timeout = "1s",
      resources = { cpu = var.cpu, memory = var.memory or 32, io = var.weight and { weight = var.weight } },
    },
  },
}]]

-- { variables of the job, fields that differ from the step before, what must be true in the kernel }
local steps = {
  { "memory and shares", { cpu = 250, memory = 48 }, { "resources.cpu: 100 -> 250", "resources.memory: 32 -> 48" },
    function(stat) return stat.memory.limit == 48 * MB and (stat.version == 2 or stat.cpu.shares == 250) end },
  { "less memory", { cpu = 250, memory = 16 }, { "resources.memory: 48 -> 16" },
    function(stat) return stat.memory.limit == 16 * MB end },
  { "the least shares", { cpu = 1 }, { "resources.cpu: 250 -> 1", "resources.memory: 16 -> 32" },
    function(stat) return stat.version == 2 or stat.cpu.shares == 2 end },
  { "a hard limit of the CPU", { cpu = 100, hard = true }, { "config.cpu_hard_limit: false -> true", "resources.cpu: 1 -> 100" },
    function(stat) return (stat.cpu.quota or 0) > 0 and stat.cpu.period == 100000 end },
  { "over another time", { hard = true, period = 50000 }, { "config.cpu_cfs_period: 100000 -> 50000" },
    function(stat) return (stat.cpu.quota or 0) > 0 and stat.cpu.period == 50000 end },
  { "no hard limit", {}, { "config.cpu_cfs_period: 50000 -> 100000", "config.cpu_hard_limit: true -> false" },
    function(stat) return (stat.cpu.quota or 0) <= 0 end },
  { "CPUs", { cpus = "0" }, { "config.cpuset_cpus: nil -> 0" },
    function(_, host) return host.CpusetCpus == "0" end },
  { "more memory than is reserved", { cpus = "0", most = 64 }, { "config.memory_hard_limit: nil -> 64" },
    function(stat, host) return stat.memory.limit == 64 * MB and host.MemoryReservation == 32 * MB end },
  { "more of it reserved", { cpus = "0", most = 64, memory = 40 }, { "resources.memory: 32 -> 40" },
    function(stat, host) return stat.memory.limit == 64 * MB and host.MemoryReservation == 40 * MB end },
  { "processes", { cpus = "0", most = 64, memory = 40, pids = 50 }, { "config.pids_limit: nil -> 50" },
    function(_, host) return host.PidsLimit == 50 end },
  { "a weight of the disks", { cpus = "0", most = 64, memory = 40, pids = 50, weight = 300 }, { "resources.io.weight: nil -> 300" },
    function(_, host) return host.BlkioWeight == 300 or host.BlkioWeight == 0 end },  -- not every kernel has weights
}

describe("a limit of a running task", function()
  local engine, endpoint, name, path, file, first

  local function dockrun_with(words, vars)
    words = table.move(words, 1, #words, 1, {})
    for key, value in pairs(vars) do table.move({ "--var", ("%s=%s"):format(key, value) }, 1, 2, #words + 1, words) end
    return jobs.dockrun(endpoint, words)
  end

  local function container() return assert(engine:container_inspect(jobs.containers(engine, name)[1].Id)) end

  -- The planned action and fields.
  local function plan(vars)
    local result = dockrun_with({ "plan", "--json", path }, vars)
    local told = assert(dockrun.json.decode(result.stdout), result.stderr)
    local fields, change = {}, told.changes[1]
    for i, field in ipairs(change.fields) do fields[i] = ("%s: %s -> %s"):format(field.path, field.old, field.new) end
    return change.action, fields, result.code
  end

  setup(function()
    engine, endpoint = engines.ready()
    name = jobs.unique "limits"
    path, file = jobs.write(JOB:format(name))
    local result = dockrun_with({ "run", "-d", path }, {})
    assert.equal(0, result.code, result.stderr)
    first = container()
  end)

  teardown(function()
    local _ <close> = file
    jobs.dockrun(endpoint, { "stop", name })
    assert.same({}, jobs.containers(engine, name))
  end)

  it("is changed in place, step by step, without a restart of the process", function()
    for _, step in ipairs(steps) do
      local what, vars, fields, holds = table.unpack(step)
      assert.same({ "in_place", fields, 1 }, { plan(vars) }, what)
      local result = dockrun_with({ "run", "-d", path }, vars)
      assert.equal(0, result.code, what .. ": " .. result.stderr)
      local after = container()
      assert.same({ first.Id, first.State.Pid }, { after.Id, after.State.Pid }, what)
      assert.is_true(holds(assert(dockrun.cgroup.read(after.State.Pid)), after.HostConfig), what)
      assert.same({ "none", {}, 0 }, { plan(vars) }, what)
    end
  end)

  it("that the engine cannot remove makes the plan replace the task", function()
    local all = steps[#steps][2]
    for gone, field in pairs {
      cpus = "config.cpuset_cpus: 0 -> nil", most = "config.memory_hard_limit: 64 -> nil", pids = "config.pids_limit: 50 -> nil",
    } do
      local vars = {}
      for key, value in pairs(all) do vars[key] = key ~= gone and value or nil end
      assert.same({ "replace", { field }, 1 }, { plan(vars) })
    end
    local result = dockrun_with({ "run", "-d", path }, {})
    assert.equal(0, result.code, result.stderr)
    local host = container().HostConfig
    assert.same({ 32 * MB, 0, "" }, { host.Memory, host.MemoryReservation, host.CpusetCpus })
    assert.same({ "none", {}, 0 }, { plan {} })
  end)
end)
