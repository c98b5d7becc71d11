-- Every request that a whole run makes, held against the engine's own specification.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local openapi = require "spec.driver.openapi"
local options = require "dockrun.options"

describe("the requests of a run", function()
  local shared, registry

  setup(function()
    shared = engines.shared()
    engines.image(shared, "busybox:1")
    registry = engines.registry().address
  end)

  -- Runs a job in this process; returns all calls that it made.
  local function calls_of(text)
    local calls = {}
    local set = options.new()
    set["docker.endpoint"], set.state_dir = shared.endpoint, jobs.state_dir
    local agent = assert(require("dockrun.agent").new(set, {
      trace = function(call) calls[#calls + 1] = openapi.keep(call) end,
    }))
    local path, file = jobs.write(text)
    local _ <close> = file
    require("spec.agent.agents").submit(agent, assert(dockrun.load_job(path)))
    agent:wait()
    agent:close()
    return calls
  end

  -- The container may not start: what counts is the body.
  local options_of_all_shapes = [[
    entrypoint = { "sh" }, init = true, healthchecks = { disable = true }, labels = { a = "b" },
    extra_hosts = { "db:192.0.2.1" }, dns_servers = { "192.0.2.53" }, volumes = { "local:/data" }, cap_add = { "chown" },
    cap_drop = { "mknod" }, security_opt = { "no-new-privileges" }, group_add = { "5" }, ipc_mode = "private", cgroupns = "private",
    devices = { { host_path = "/dev/null" } }, shm_size = 65536, sysctl = { ["net.core.somaxconn"] = 5 }, ulimit = { core = 0 },
    cpu_hard_limit = true, cpuset_cpus = "0", memory_hard_limit = 64, oom_score_adj = 5, pids_limit = 50, storage_opt = { size = "1G" },
    network_mode = "none-such", network_aliases = { "x" }, ipv4_address = "192.0.2.9", ipv6_address = "fd00::9",
    mount = {
      { type = "tmpfs", target = "/t", tmpfs_options = { size = 4096, mode = "0700" } },
      { type = "bind", target = "/b", source = "local", bind_options = { propagation = "private" } },
    }]]

  local function made()
    local all = {}
    for _, fields in ipairs {
      { image = registry .. "/absent:1", command = "true" },
      { command = "exit 3", task = "env = { A = 'b' },",
        resources = "cpu = 250, memory = 32, network = { dynamic_ports = { 80, 'admin' } }" },
      { command = "true", config = options_of_all_shapes,
        resources = "memory = 32, io = { weight = 100, device = { ['/dev/null'] = { read_bps = 1, write_iops = 2 } } }" },
    } do
      fields.name, fields.image = jobs.unique "requests", fields.image or "busybox:1"
      local calls = calls_of(jobs.text(fields))
      table.move(calls, 1, #calls, #all + 1, all)
    end
    return all
  end

  it("are what the Engine API asks for, in each version", function()
    local calls, names = made(), {}
    for _, call in ipairs(calls) do names[call.name] = true end
    for _, name in ipairs { "events", "image_pull", "container_create", "container_start", "container_inspect", "container_remove" } do
      assert.is_true(names[name], name .. " was never called")
    end
    for _, version in ipairs(openapi.versions) do assert.same({}, openapi.load(version):check_calls(calls), version) end
  end)

  it("would not pass if a body were wrong", function()
    local problems = openapi.load(openapi.versions[1]):check_calls { {
      method = "POST", path = "/v1.41/containers/create?name=x", query = { name = "x" },
      body = { Image = "x", HostConfig = { Memory = "much", PortBindngs = {} } },
    } }
    assert.equal(2, #problems)
  end)
end)
