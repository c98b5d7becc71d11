-- What an agent does not let tasks do.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local options = require "dockrun.options"
local policy = require "dockrun.driver.policy"
local process = require "spec.process"
local rows = require "dockrun.job.schema.docker_options"

local function task_of(config)
  config.image, config.network_mode = "busybox:1", "bridge"
  return { name = "web", config = config, resources = { cpu = 100, memory = 32 } }
end

-- An agent's options: the defaults, and what is given.
local function agent_with(given)
  local set = options.new()
  for name, value in pairs(given or {}) do assert(options.set(set, name, value)) end
  return set
end

describe("the agent's policy", function()
  -- { config, refusals at the key paths, options of an agent that takes it }
  for what, case in pairs {
    ["privileged containers"] = { { privileged = true }, { privileged = "docker.allow_privileged" },
      { ["docker.allow_privileged"] = true } },
    ["capabilities"] = { { cap_add = { "sys_admin", "CHOWN" } }, { cap_add = "docker.allow_caps" },
      { ["docker.allow_caps"] = "chown,CAP_SYS_ADMIN" } },
    ["all capabilities"] = { { cap_add = { "all" } }, { cap_add = "docker.allow_caps" }, { ["docker.allow_caps"] = "all" } },
    ["a runtime"] = { { runtime = "kata" }, { runtime = "docker.allow_runtimes" }, { ["docker.allow_runtimes"] = "runc,kata" } },
    ["the host's processes, as what is privileged may see them"] = { { pid_mode = "host" }, { pid_mode = "docker.allowed_modes.pid" },
      { ["docker.allow_privileged"] = true } },
    ["the host's namespaces"] = {
      { ipc_mode = "host", userns_mode = "host", uts_mode = "host" },
      { ipc_mode = "docker.allowed_modes.ipc", userns_mode = "docker.allowed_modes.userns", uts_mode = "docker.allowed_modes.uts" },
      { ["docker.allow_privileged"] = true } },
    ["the host's IPC"] = { { ipc_mode = "host" }, { ipc_mode = "docker.allowed_modes.ipc" }, { ["docker.allowed_modes.ipc"] = "host" } },
    ["a container's IPC"] = { { ipc_mode = "container:db" }, { ipc_mode = "docker.allowed_modes.ipc" },
      { ["docker.allowed_modes.ipc"] = "container" } },
    ["the host's processes"] = { { pid_mode = "host" }, { pid_mode = "docker.allowed_modes.pid" },
      { ["docker.allowed_modes.pid"] = "host" } },
    ["the host's users"] = { { userns_mode = "host" }, { userns_mode = "docker.allowed_modes.userns" },
      { ["docker.allowed_modes.userns"] = "host" } },
    ["the host's names"] = { { uts_mode = "host" }, { uts_mode = "docker.allowed_modes.uts" }, { ["docker.allowed_modes.uts"] = "host" } },
    ["paths of the host"] = { { volumes = { "local:/ok", "/etc:/etc" } }, { ["volumes[2]"] = "docker.volumes.enabled" },
      { ["docker.volumes.enabled"] = true } },
    ["paths above the task's"] = { { volumes = { "../../..:/x" } }, { ["volumes[1]"] = "docker.volumes.enabled" },
      { ["docker.volumes.enabled"] = true } },
    ["volume drivers"] = { { volumes = { "name:/x" }, volume_driver = "local" }, { volume_driver = "docker.volumes.enabled" },
      { ["docker.volumes.enabled"] = true } },
    ["mounts of the host's paths, and volumes"] = {
      { mount = { { type = "tmpfs", target = "/a" }, { type = "bind", source = "/", target = "/b" }, { type = "volume", target = "/c" } } },
      { ["mount[2]"] = "docker.volumes.enabled", ["mount[3]"] = "docker.volumes.enabled" }, { ["docker.volumes.enabled"] = true },
    },
    ["paths as devices"] = { { devices = { { host_path = "/dev/null" }, { host_path = "/dev/../etc/shadow" } } },
      { ["devices[2].host_path"] = "docker.volumes.enabled" }, { ["docker.volumes.enabled"] = true } },
    ["own directories that the host would share"] = {
      { volumes = { "local:/a:rw,rshared", "local:/b:rslave" },
        mount = { { type = "bind", source = "../alloc", target = "/c", bind_options = { propagation = "shared" } } } },
      { ["volumes[1]"] = "cannot be shared", ["mount[1]"] = "cannot be shared" },
    },
    ["archives of the host"] = { { load = "/local/../../../x.tar" }, { load = "own directories" } },
  } do
    local config, refusals, taken = table.unpack(case)
    it("refuses " .. what .. " by itself, naming the key and the setting", function()
      local ok, err = policy.check(task_of(config), agent_with(), { path = "job.j.task.web" })
      assert.is_nil(ok)
      assert.equal("spec", err.kind)
      local found = {}
      for _, problem in ipairs(err.list) do
        local key = problem.path:match "^job%.j%.task%.web%.config%.(.+)$"
        assert.truthy(key and refusals[key] and problem.message:find(refusals[key], 1, true), tostring(err))
        found[key] = refusals[key]
      end
      assert.same(refusals, found)
    end)
    if taken then
      it("takes " .. what .. " if the agent allows them", function()
        assert(policy.check(task_of(config), agent_with(taken)))
      end)
    end
  end

  for _, case in ipairs {
    { "docker.pids_limit", 100, { pids_limit = 101 }, { pids_limit = 100 } },
    { "docker.oom_score_adj", 50, { oom_score_adj = 49 }, { oom_score_adj = 50 } },
  } do
    local option, bound, bad, good = table.unpack(case)
    it("bounds a task's number by " .. option, function()
      local set = agent_with { [option] = bound }
      local ok, err = policy.check(task_of(bad), set)
      assert.is_nil(ok)
      assert.truthy(tostring(err):find(option, 1, true))
      assert(policy.check(task_of(good), set))
      assert(policy.check(task_of {}, set))
      assert(policy.check(task_of(bad), agent_with()))
    end)
  end

  it("takes what stays in a container", function()
    assert(policy.check(task_of {
      privileged = false, cap_add = { "CAP_CHOWN", "net_raw" }, cap_drop = { "all" }, runtime = "runc", ipc_mode = "private",
      volumes = { "local/x:/x", "../alloc/data:/y:ro" }, mount = { { type = "bind", source = "local", target = "/z" } },
      load = "image.tar", pids_limit = 5, oom_score_adj = 5,
    }, agent_with()))
  end)

  it("refuses paths as devices to throttle", function()
    local task = task_of {}
    task.resources.io = { device = { { path = "/dev/vda", read_bps = 1 }, { path = "/root/x", read_bps = 1 } } }
    local _, err = policy.check(task, agent_with())
    assert.same({ 1, "task.web.resources.io.device[2].path" }, { #err.list, err.list[1].path })
    assert(policy.check(task, agent_with { ["docker.volumes.enabled"] = true }))
  end)

  it("says everything that it refuses at once", function()
    local _, err = policy.check(task_of {
      privileged = true, cap_add = { "sys_time" }, pid_mode = "host", volumes = { "/:/host", "/etc:/etc" },
    }, agent_with())
    assert.equal(5, #err.list)
    assert.truthy(tostring(err):find "task.web.config.privileged: the agent's docker.allow_privileged is false")
  end)

  it("limits just the options whose rows say so, by settings that there are", function()
    local known, limited = options.new(), {}
    for _, row in ipairs(rows) do
      if row.policy then
        limited[row.name] = true
        assert.is_function(policy.rules[row.name], row.name)
      end
      for _, option in ipairs(row.policy or {}) do assert.not_nil(known[option], option) end
    end
    limited.load = true -- by no setting
    for name in pairs(policy.rules) do assert.is_true(limited[name], name) end
  end)
end)

describe("a list among the options", function()
  it("is text with commas, or a table", function()
    local set = agent_with { ["docker.allow_runtimes"] = "runc, kata" }
    assert.same({ "runc", "kata" }, set["docker.allow_runtimes"])
    assert(options.set(set, "docker.allow_runtimes", { "runc" }))
    assert.same({ "runc" }, set["docker.allow_runtimes"])
    local ok, err = options.set(set, "docker.pids_limit", { 5 })
    assert.is_nil(ok)
    assert.equal("invalid", err.kind)
  end)

  it("stands in a config file under its name's parts", function()
    local path, file = jobs.write [[return { docker = { allowed_modes = { pid = { "host" } }, volumes = { enabled = true } } }]]
    local _ <close> = file
    local set = options.new()
    assert(options.read_file(set, path))
    assert.same({ { "host" }, true }, { set["docker.allowed_modes.pid"], set["docker.volumes.enabled"] })
  end)
end)

describe("a task that asks for too much", function()
  local engine, endpoint

  setup(function() engine, endpoint = engines.ready() end)

  it("is refused by `run` and `plan` before anything is pulled or made, with all that is wrong at once", function()
    local name = jobs.unique "refused"
    local path, file = jobs.write(jobs.text {
      name = name, image = "127.0.0.1:1/never:1", command = "true", job = "meta = { ipc = 'host', network = 'container:x' },",
      group = "constraint = { attribute = '$attr.kernel.name', value = 'plan9' },",
      config = "privileged = true, ipc_mode = '${meta.ipc}', network_mode = '${meta.network}', hostname = '${meta.nmae}',",
    })
    local _ <close> = file
    for _, command in ipairs { "run", "plan" } do
      local result = process.run { command, "--json", "--endpoint", endpoint, "--state-dir", jobs.state_dir, path }
      assert.same({ 2, "" }, { result.code, result.stdout })
      local told, path_of = {}, "^job%." .. name:gsub("%p", "%%%0") .. "%."
      for line in result.stderr:gmatch "error: ([^\n]+)\n" do told[#told + 1] = line:gsub(path_of, "") end
      assert.same({
        "group.group.constraint[1]: $attr.kernel.name is 'linux' on this host, but must be = 'plan9'",
        "group.group.task.task.config.hostname: unknown name '${meta.nmae}'; write '$${meta.nmae}' for the text itself",
        "group.group.task.task.config.network_mode: network_mode 'container:x' is not supported; "
          .. "use default, bridge, host, none or the name of a network",
        "group.group.task.task.config.ipc_mode: 'host' is not among the agent's docker.allowed_modes.ipc",
        "group.group.task.task.config.privileged: the agent's docker.allow_privileged is false",
      }, told)
    end
    assert.same({}, jobs.containers(engine, name))
  end)

  it("runs if the agent's options let it", function()
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "allowed", image = "busybox:1", command = "grep -q root /host/passwd && exit 3",
      config = "volumes = { '/etc:/host:ro' }",
    }, { "--set", "docker.volumes.enabled=true" })
    assert.equal(3, result.by.exited.exit_code, result.stdout)
  end)

  it("has the agent's limits if it says nothing", function()
    local child <close> = jobs.start(endpoint, jobs.text { name = jobs.unique "limits", image = "busybox:1", command = "sleep 60" }, {
      "--set", "docker.pids_limit=77", "--set", "docker.oom_score_adj=11", "--set", "docker.allow_caps=chown,kill",
    })
    local _ <close> = child.file
    local host = assert(engine:container_inspect(child:event("started").container_id)).HostConfig
    assert.same({ 77, 11 }, { host.PidsLimit, host.OomScoreAdj })
    assert.same({
      "AUDIT_WRITE", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP",
      "SETUID", "SYS_CHROOT",
    }, host.CapDrop)
    child:kill "SIGINT"
    child:wait()
  end)

  it("can see by the node's attributes what there is", function()
    for _, value in ipairs { "true", "false" } do
      local result = process.run { "fingerprint", "--json", "--endpoint", endpoint,
        "--set", "docker.allow_privileged=" .. value, "--set", "docker.volumes.enabled=" .. value }
      local attributes = assert(dockrun.json.decode(result.stdout))
      assert.equal(value, attributes["driver.docker.privileged.enabled"])
      assert.equal(value, attributes["driver.docker.volumes.enabled"])
    end
  end)

  it("can tell the host by the names that Nomad has for it", function()
    local attributes = assert(dockrun.json.decode(process.run({ "fingerprint", "--json", "--endpoint", endpoint }).stdout))
    local release = process.run({ "-c", ". /etc/os-release; printf %s,%s $ID $VERSION_ID" }, { program = "sh" }).stdout
    assert.equal(release, attributes["os.name"] .. "," .. attributes["os.version"])
    local machine = process.run({ "-m" }, { program = "uname" }).stdout:match "%S+"
    local known = { x86_64 = "amd64", aarch64 = "arm64" }
    assert.same({ known[machine] or machine, known[machine] or machine }, { attributes.arch, attributes["cpu.arch"] })
  end)
end)
