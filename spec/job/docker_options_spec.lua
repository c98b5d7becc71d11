-- The options of `config`, as a job file says them.
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local process = require "spec.process"
local schema = require "dockrun.job.schema"

-- A job with one task of this config; Lua, so that whatever can be wrong can be written.
local function read(config, resources)
  return load.string(([[return job "j" { task "t" { config = { image = "busybox", %s }, resources = { %s } } }]]):format(
    config or "", resources or ""), "lua", "job")
end

local function config_of(config, resources) return assert(read(config, resources)).groups[1].tasks[1].config end

local function problem_of(config, resources)
  local job, err = read(config, resources)
  assert.is_nil(job)
  assert.equal(1, #err.list, tostring(err))
  return (err.list[1].path:gsub("^job%.j%.task%.t%.", "")), err.list[1].message
end

describe("config", function()
  it("has Nomad's defaults where a job says nothing", function()
    assert.same({
      image = "busybox", network_mode = "bridge", container_exists_attempts = 5, cpu_cfs_period = 100000,
      logging = { type = "json-file", config = { ["max-file"] = "2", ["max-size"] = "2m" } },
      advertise_ipv6_address = false, auth_soft_fail = false, cpu_hard_limit = false, force_pull = false, init = false,
      interactive = false, privileged = false, readonly_rootfs = false, tty = false,
    }, config_of())
  end)

  it("has what a given logging block says, and no more", function()
    assert.same({ type = "journald" }, config_of("logging = { type = 'journald' }").logging)
    assert.same({ type = "json-file", config = { ["max-size"] = "9m" } },
      config_of("logging = { config = { ['max-size'] = '9m' } }").logging)
  end)

  it("takes numbers and booleans in quotes", function()
    local config = config_of [[privileged = "true", pids_limit = "5", cpu_cfs_period = "20000", image_pull_timeout = "1m30s",
      mount = { { type = "tmpfs", target = "/t", readonly = "1", tmpfs_options = { size = "4096", mode = "0700" } } }]]
    assert.same({ true, 5, 20000, 90 }, { config.privileged, config.pids_limit, config.cpu_cfs_period, config.image_pull_timeout })
    assert.same({ type = "tmpfs", target = "/t", readonly = true, tmpfs_options = { size = 4096, mode = 448 } }, config.mount[1])
  end)

  it("takes blocks and lists of maps for each other", function()
    for _, text in ipairs {
      [[mount = { type = "tmpfs", target = "/t" }, labels = { { a = "1" }, { b = 2 } }, devices = { { host_path = "/dev/null" } }]],
      [[mount = { { type = "tmpfs", target = "/t" } }, labels = { a = "1", b = "2" }, devices = { host_path = "/dev/null" }]],
    } do
      local config = config_of(text)
      assert.same({ { type = "tmpfs", target = "/t", readonly = false } }, config.mount)
      assert.same({ a = "1", b = "2" }, config.labels)
      assert.same({ { host_path = "/dev/null", cgroup_permissions = "rwm" } }, config.devices)
    end
  end)

  it("is the same from JSON", function()
    local job = assert(load.string(json.encode { job = { j = { task = { t = { config = {
      image = "busybox", sysctl = { { ["net.core.somaxconn"] = "7" } }, tty = "true", ulimit = { nofile = 5 },
    } } } } } }, "json"))
    local config = job.groups[1].tasks[1].config
    assert.same({ { ["net.core.somaxconn"] = "7" }, true, { nofile = "5" } }, { config.sysctl, config.tty, config.ulimit })
  end)

  -- { what is wrong, where, why }
  local refused = {
    { "image = ' '", "config.image", "must not be empty" },
    { "image = 'a b'", "config.image", "'a b' is not an image reference ([registry/]name[:tag][@digest])" },
    { "image = 'Redis:7'", "config.image",
      "'Redis:7' is not an image reference ([registry/]name[:tag][@digest]); image names are lower case: did you mean 'redis:7'?" },
    { "image_pull_timeout = '0s'", "config.image_pull_timeout", "must be at least 1, got 0" },
    { "load = ''", "config.load", "must not be empty" },
    { "command = ' '", "config.command", "must not be empty" },
    { "work_dir = 'tmp'", "config.work_dir", "must be an absolute path, got 'tmp'" },
    { "logging = { type = '' }", "config.logging.type", "must not be empty" },
    { "container_exists_attempts = 0", "config.container_exists_attempts", "must be at least 1, got 0" },
    { "network_mode = 'container:web'", "config.network_mode", "network_mode 'container:web' is not supported" },
    { "network_aliases = { '' }, network_mode = 'n'", "config.network_aliases[1]", "must not be empty" },
    { "dns_search_domains = { '' }", "config.dns_search_domains[1]", "must not be empty" },
    { "dns_options = { ' ' }", "config.dns_options[1]", "must not be empty" },
    { "volume_driver = '', volumes = { 'a:/b' }", "config.volume_driver", "must not be empty" },
    { "mount = { { target = '/t', source = '' } }", "config.mount[1].source", "must not be empty" },
    { "mount = { { target = '/t', volume_options = { driver_config = { name = '' } } } }",
      "config.mount[1].volume_options.driver_config.name", "must not be empty" },
    { "mount = { { type = 'tmpfs', target = '/t', tmpfs_options = { size = -1 } } }", "config.mount[1].tmpfs_options.size",
      "must be at least 0, got -1" },
    { "mount = { { type = 'bind', source = 'x', target = '/t', bind_options = { propagation = 'both' } } }",
      "config.mount[1].bind_options.propagation", "must be one of private, rprivate, shared, rshared, slave, rslave, got 'both'" },
    { "devices = { { host_path = 'null' } }", "config.devices[1].host_path", "must be an absolute path, got 'null'" },
    { "devices = { { host_path = '/dev/null', container_path = 'null' } }", "config.devices[1].container_path",
      "must be an absolute path, got 'null'" },
    { "shm_size = -1", "config.shm_size", "must be at least 0, got -1" },
    { "cap_drop = { 'kill', 'net' }", "config.cap_drop[2]", "must be a capability such as NET_ADMIN, or all, got 'net'" },
    { "security_opt = { '' }", "config.security_opt[1]", "must not be empty" },
    { "group_add = { '' }", "config.group_add[1]", "must not be empty" },
    { "runtime = ''", "config.runtime", "must not be empty" },
    { "userns_mode = 'private'", "config.userns_mode", "must be one of host, got 'private'" },
    { "pids_limit = -1", "config.pids_limit", "must be at least 0, got -1" },
    { "memory_hard_limit = -1", "config.memory_hard_limit", "must be at least 0, got -1" },
    { "ipv4_address = '10.0.0.256', network_mode = 'n'", "config.ipv4_address", "must be an IPv4 address, got '10.0.0.256'" },
    { "ipv6_address = 'fd00::1::2', network_mode = 'n'", "config.ipv6_address", "must be an IPv6 address, got 'fd00::1::2'" },
    { "ipv4_address = '10.0.0.5'", "config.ipv4_address", "needs a network of your own, but network_mode is 'bridge'" },
    { "network_aliases = { 'web' }, network_mode = 'host'", "config.network_aliases",
      "needs a network of your own, but network_mode is 'host'" },
    { "dns_servers = { '1.1.1.1', 'one' }", "config.dns_servers[2]", "must be an IP address, got 'one'" },
    { "mac_address = '02:68:b3'", "config.mac_address", "must be a MAC address such as 02:68:b3:29:da:98, got '02:68:b3'" },
    { "hostname = 'a b'", "config.hostname", "must be a host name (letters, digits, '-', '.'), got 'a b'" },
    { "extra_hosts = { 'db' }", "config.extra_hosts[1]", "must be 'name:address', got 'db'" },
    { "cap_add = { 'net_admi' }", "config.cap_add[1]", "must be a capability such as NET_ADMIN, or all, got 'net_admi'" },
    { "cgroupns = 'shared'", "config.cgroupns", "must be one of host, private, got 'shared'" },
    { "ipc_mode = 'public'", "config.ipc_mode",
      "must be none, private, shareable, host, or container:NAME for that of a container, got 'public'" },
    { "pid_mode = 'private'", "config.pid_mode", "must be host, or container:NAME for that of a container, got 'private'" },
    { "uts_mode = 'private'", "config.uts_mode", "must be one of host, got 'private'" },
    { "cpu_cfs_period = 1000001", "config.cpu_cfs_period", "must be at most 1000000, got 1000001" },
    { "cpuset_cpus = 'all'", "config.cpuset_cpus", "must be a list of CPUs such as '0-2,7', got 'all'" },
    { "oom_score_adj = -1", "config.oom_score_adj", "must be at least 0, got -1" },
    { "ulimit = { files = '5' }", "config.ulimit.files", "'files' is not a limit of setrlimit(2), such as nofile" },
    { "ulimit = { nofile = 'many' }", "config.ulimit.nofile", "must be 'soft:hard', or one number for both, -1 for no limit, got 'many'" },
    { "ulimit = { nofile = '5:4' }", "config.ulimit.nofile", "the soft limit (5) must not be above the hard one (4)" },
    { "labels = { ['dockrun.job'] = 'x' }", "config.labels.dockrun.job",
      "'dockrun.job' begins with 'dockrun.', which is kept for dockrun's own" },
    { "volumes = { '/data' }", "config.volumes[1]", "must be 'source:target' or 'source:target:mode', the target absolute, got '/data'" },
    { "volumes = { 'a:b' }", "config.volumes[1]", "must be 'source:target' or 'source:target:mode', the target absolute, got 'a:b'" },
    { "volume_driver = 'nfs'", "config.volume_driver", "has no meaning without volumes" },
    { "mount = { { type = 'bind', target = '/t' } }", "config.mount[1].source", "is required: the path on the host" },
    { "mount = { { type = 'tmpfs', target = '/t', source = 'x' } }", "config.mount[1].source", "has no meaning for a tmpfs mount" },
    { "mount = { { target = '/t', tmpfs_options = { size = 1 } } }", "config.mount[1].tmpfs_options", "has no meaning for a volume mount" },
    { "mount = { { type = 'cluster', target = '/t' } }", "config.mount[1].type", "must be one of volume, bind, tmpfs, got 'cluster'" },
    { "mount = { { type = 'tmpfs', target = 't' } }", "config.mount[1].target", "must be an absolute path, got 't'" },
    { "mount = { { type = 'tmpfs', target = '/t', tmpfs_options = { mode = '0999' } } }", "config.mount[1].tmpfs_options.mode",
      "must be a file's mode such as '0755', got '0999'" },
    { "devices = { { host_path = '/dev/null', cgroup_permissions = 'rx' } }", "config.devices[1].cgroup_permissions",
      "must be some of r, w and m, got 'rx'" },
    { "memory_hard_limit = 31", "config.memory_hard_limit", "must be at least resources.memory, which is 32; got 31" },
    { "image_pull_timeout = 'soon'", "config.image_pull_timeout", "must be a duration" },
    { "healthchecks = { disabled = true }", "config.healthchecks.disabled", "unknown key 'disabled'; did you mean 'disable'?" },
    { "auth = { user = 'x' }", "config.auth.user", "unknown key 'user'" },
  }

  for _, case in ipairs(refused) do
    local text, path, message = table.unpack(case)
    it("refuses " .. text, function()
      local at, why = problem_of(text, "memory = 32")
      assert.equal(path, at)
      assert.truthy(why:find(message, 1, true), why)
    end)
  end

  it("refuses something of each option that not every value of its type is good for", function()
    local shown, missing = "\n", {}
    for _, case in ipairs(refused) do shown = shown .. case[2]:gsub("%[%d+%]", "") .. ".\n" end
    local function look(rows, prefix)
      for _, row in ipairs(rows) do
        local path = prefix .. row.name
        local judged = row.check or row.check_key or row.values
        if judged and not shown:find("\n" .. path .. ".", 1, true) then missing[#missing + 1] = path end
        look(row.rows or {}, path .. ".")
      end
    end
    look(schema.config, "config.")
    assert.same({}, missing)
  end)

  -- What is of no type that a row may have, as Lua.
  local wrong = {
    string = "{}", integer = "'x'", boolean = "'maybe'", duration = "'soon'", mode = "'0999'", list = "true", map = "'x'", block = "'x'",
    blocks = "'x'",
  }
  -- What a block must have besides.
  local besides = { ["config.mount."] = "target = '/t', ", ["config.devices."] = "host_path = '/dev/null', " }

  it("refuses what is of another type, by its place, whichever the option", function()
    local seen = 0
    local function look(rows, path, before, after)
      for _, row in ipairs(rows) do
        local bad = assert(wrong[row.type] or row.unused, row.type)
        if not row.unused then
          local _, err = read(("%s%s = %s%s"):format(before, row.name, bad, after))
          local at = false
          for _, problem in ipairs(err.list) do at = at or problem.path:gsub("%[%d+%]", "") == "job.j.task.t." .. path .. row.name end
          assert.is_true(at, path .. row.name .. ": " .. tostring(err))
          seen = seen + 1
        end
        local inside = path .. row.name .. "."
        if row.rows then look(row.rows, inside, ("%s%s = { %s"):format(before, row.name, besides[inside] or ""), " }" .. after) end
      end
    end
    look(schema.config, "config.", "", "")
    assert.is_true(seen > 70)
  end)

  it("leaves what is filled in later to be judged then", function()
    config_of [[hostname = "${NOMAD_TASK_NAME}", ipv4_address = "${meta.ip}", network_mode = "${meta.network}",
      dns_servers = { "$attr.dns" },
      cap_add = { "${meta.cap}" }, ipc_mode = "${meta.ipc}", uts_mode = "${meta.uts}", volumes = { "${meta.volume}" },
      ulimit = { nofile = "${meta.files}" }, load = "${NOMAD_ALLOC_DIR}/x.tar", extra_hosts = { "${meta.host}" },
      mount = { { type = "${meta.kind}", target = "${meta.at}" } }, mac_address = "${meta.mac}"]]
  end)

  for address, valid in pairs {
    ["::"] = true, ["::1"] = true, ["fd00:1:2:3:4:5:6:7"] = true, ["1::"] = true, ["::ffff:192.0.2.1"] = true, ["1:2:3:4:5:6:7::"] = true,
    [":1"] = false, ["1:"] = false, ["1:2:3"] = false, ["1:2:3:4:5:6:7:8:9"] = false, [":::"] = false, ["12345::"] = false,
    ["1:2:3:4:5:6:7:8::"] = false, ["::1.2.3"] = false, ["g::"] = false, [""] = false,
  } do
    it(("takes '%s' as %s IPv6 address"):format(address, valid and "an" or "no"), function()
      local job = read(("network_mode = 'n', ipv6_address = '%s'"):format(address))
      assert.equal(valid, job ~= nil)
    end)
  end
end)

describe("resources.io", function()
  it("has a weight, and limits by device", function()
    local job = assert(read(nil, [[io = { weight = "500",
      device = { ["/dev/sda"] = { read_bps = 5 }, ["/dev/sdb"] = { write_iops = "6" } } }]]))
    assert.same({ weight = 500, device = { { path = "/dev/sda", read_bps = 5 }, { path = "/dev/sdb", write_iops = 6 } } },
      job.groups[1].tasks[1].resources.io)
  end)

  it("refuses a weight that no kernel takes", function()
    assert.same({ "resources.io.weight", "must be at most 1000, got 1001" }, { problem_of(nil, "io = { weight = 1001 }") })
  end)
end)

describe("dockrun help config", function()
  it("fits a terminal of 80 columns, and names every option", function()
    local result = process.run({ "help", "config" }, { env = { COLUMNS = "80" } })
    assert.equal(0, result.code)
    for line in result.stdout:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
    for _, name in ipairs { "config.image (string, required)", "config.mount.volume_options.labels (map of string)",
      "config.privileged (boolean, false)", "resources.io.device.read_bps (integer)" } do
      assert.truthy(result.stdout:find("\n" .. name, 1, true) or result.stdout:find(name, 1, true) == 1, name)
    end
  end)

  it("gives its rows to programs", function()
    local by_name = {}
    for _, row in ipairs(assert(json.decode(process.run({ "help", "config", "--json" }).stdout))) do by_name[row.name] = row end
    local row = by_name["config.privileged"]
    assert.same({ "boolean", false, "HostConfig.Privileged", { "docker.allow_privileged" } },
      { row.type, row.default, row.engine, row.policy })
    local options = {}
    for _, option in ipairs(json.decode(process.run({ "help", "options", "--json" }).stdout)) do options[option.name] = option end
    assert.same({ "boolean", false }, { options["docker.allow_privileged"].type, options["docker.allow_privileged"].default })
  end)

  it("is what docs/config.md says: `dockrun help config --markdown > docs/config.md`", function()
    local file <close> = assert(io.open "docs/config.md")
    assert.equal(file:read "a", process.run({ "help", "config", "--markdown" }).stdout)
  end)
end)
