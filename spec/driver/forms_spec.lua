-- Every way to ask for a port, and every variable of a task's environment, from inside of a real container.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"

local JOB = [[
job "%s" {
  type = "batch"
  meta { owner = "platform", tier = "gold", "two-words" = 1 }
  group "g" {
    restart { attempts = 0 }
    meta { tier = "silver", zone = "north" }
    network {
      port "shared" { to = 8080 }
      port "unshared" { to = 8081 }
    }
    task "one" {
      driver = "docker"
      kill_timeout = "1s"
      config {
        image   = "busybox:1"
        command = "sleep"
        args    = ["600"]
        ports   = ["shared"]
        port_map { mapped = 82, other-one = 83 }
      }
      meta { zone = "south" }
      env {
        LEVEL            = "info"
        NOMAD_TASK_NAME  = "mine"
        WHERE            = "${NOMAD_ADDR_admin} ${NOMAD_META_OWNER} ${meta.zone} ${env.LEVEL} $${LEVEL} $attr.kernel.name"
      }
      resources {
        cpu    = 250
        memory = 32
        network {
          mbits          = "10"
          dynamic_ports  = [6379, "6380", "admin"]
          reserved_ports = [%d]
          port "fixed"     { static = %d }
          port "moved"     { static = "%d", to = 80 }
          port "dynamic"   {}
          port "led"       { to = 81 }
          port "mapped"    {}
          port "other-one" { static = %d }
        }
      }
    }
    task "two" {
      driver = "docker"
      kill_timeout = "1s"
      config { image = "busybox:1", command = "sleep 600", ports = ["unshared"] }
    }
  }
}
]]

-- Ports below the range of dynamic ones that are free.
local function free_ports(n)
  local ports, taken = {}, {}
  while #ports < n do
    local port = math.random(10000, 19999)
    if not taken[port] and dockrun.ports.probe("0.0.0.0", port) then ports[#ports + 1] = port end
    taken[port] = true
  end
  return ports
end

describe("the ports of a task", function()
  local engine, endpoint, name, fixed, child, started

  setup(function()
    engine, endpoint = engines.ready()
    name, fixed = jobs.unique "forms", free_ports(4)
    child = jobs.start(endpoint, JOB:format(name, table.unpack(fixed)), nil, ".nomad")
    started = {}
    repeat
      dockrun.sleep(0.05)
      for _, event in ipairs(child:events()) do
        if event.event == "started" then started[event.task] = event end
      end
      assert(not child.result and not child.stdout:find '"event":"failed"', child.stdout .. child.stderr)
    until started.one and started.two
  end)

  teardown(function()
    if not child then return end
    local _ <close> = child.file
    child:kill "SIGINT"
    child:wait()
    assert.same({}, jobs.containers(engine, name))
  end)

  -- { label = { host_port, container_port } }, as the event tells.
  local function told(task)
    local ports = {}
    for _, port in ipairs(started[task].ports) do ports[port.label] = { port.host_port, port.container_port } end
    return ports
  end

  it("are published by tcp and udp, each as its form says", function()
    local container = assert(engine:container_inspect(started.one.container_id))
    local ports, published = told "one", {}
    for key, bindings in pairs(container.NetworkSettings.Ports) do
      for _, binding in ipairs(bindings) do
        if binding.HostIp ~= "::" then
          assert.equal("0.0.0.0", binding.HostIp)
          published[key] = tonumber(binding.HostPort)
        end
      end
    end
    local function is(label, container_port, host_port)
      local port = assert(ports[label], label)
      assert.same({ host_port or port[1], container_port or port[1] }, port, label)
      for _, protocol in ipairs { "tcp", "udp" } do
        local key = ("%d/%s"):format(port[2], protocol)
        assert.equal(port[1], published[key], label)
        published[key] = nil
      end
      ports[label] = nil
      if not host_port then assert.is_true(port[1] >= 20000 and port[1] <= 60000, label) end
    end
    is("6379", 6379)
    is("6380", 6380)
    is("admin")
    is(tostring(fixed[1]), fixed[1], fixed[1])
    is("fixed", fixed[2], fixed[2])
    is("moved", 80, fixed[3])
    is("dynamic")
    is("led", 81)
    is("mapped", 82)
    is("other-one", 83, fixed[4])
    is("shared", 8080)
    assert.same({ {}, {} }, { ports, published })
  end)

  it("of the group go to the task that names them", function()
    assert.equal(8081, told("two").unshared[2])
    assert.is_nil(told("two").shared)
  end)

  it("are in its environment, with all else that it is told, and no more", function()
    local result = jobs.dockrun(endpoint, { "exec", name .. "/one", "--", "env" })
    local env = {}
    for line in result.stdout:gmatch "[^\n]+" do env[line:match "^(.-)="] = line:match "=(.*)$" end
    for _, other in ipairs { "PATH", "HOME", "HOSTNAME" } do env[other] = nil end
    local ip = started.one.ports[1].ip
    local function host(label) return tostring(told("one")[label][1]) end
    local expected = {
      NOMAD_IP = ip, NOMAD_MEMORY_LIMIT = "32", NOMAD_CPU_LIMIT = "250", NOMAD_META_OWNER = "platform", NOMAD_META_TIER = "silver",
      NOMAD_META_ZONE = "south", NOMAD_META_TWO_WORDS = "1", NOMAD_ALLOC_ID = started.one.alloc, NOMAD_ALLOC_NAME = name .. ".g[0]",
      NOMAD_ALLOC_INDEX = "0", NOMAD_JOB_NAME = name, NOMAD_GROUP_NAME = "g", NOMAD_TASK_NAME = "mine", NOMAD_ALLOC_DIR = "/alloc",
      NOMAD_TASK_DIR = "/local", NOMAD_SECRETS_DIR = "/secrets", LEVEL = "info",
      WHERE = ("%s:%s platform south info ${LEVEL} linux"):format(ip, host "admin"),
    }
    -- A numeric label is the port in the container already: what it is told is the host's. Any other is told what to bind.
    for label, port in pairs {
      ["6379"] = host "6379", ["6380"] = host "6380", admin = host "admin", [tostring(fixed[1])] = tostring(fixed[1]),
      fixed = tostring(fixed[2]), moved = "80", dynamic = host "dynamic", led = "81", mapped = "82", ["other-one"] = "83", shared = "8080",
    } do
      for _, written in ipairs { label, (label:upper():gsub("-", "_")) } do
        expected["NOMAD_PORT_" .. written] = port
        expected["NOMAD_HOST_PORT_" .. written] = host(label)
        expected["NOMAD_ADDR_" .. written] = ip .. ":" .. host(label)
        expected["NOMAD_IP_" .. written] = ip
      end
    end
    assert.same(expected, env)
  end)

  it("see their directories: /alloc and /local on the host, /secrets in memory", function()
    local script = [[
cd $NOMAD_ALLOC_DIR && ls | tr '\n' ' '; echo 1 >data/x; echo 2 >$NOMAD_TASK_DIR/y; echo 3 >$NOMAD_SECRETS_DIR/z
stat -c '%a %u' /alloc /alloc/data /local /secrets | tr '\n' ','
awk '$2 == "/secrets" { print $1, $3 }' /proc/mounts]]
    local result = jobs.dockrun(endpoint, { "exec", name .. "/one", "--", "sh", "-c", script })
    assert.equal("data logs tmp 777 0,777 0,777 0,777 0,tmpfs tmpfs\n", (result.stdout:gsub(",tmpfs", ",tmpfs")))
    local root = ("%s/alloc/%s"):format(jobs.state_dir, started.one.alloc)
    local function read(path)
      local file <close> = assert(io.open(root .. path))
      return file:read "a"
    end
    assert.same({ "1\n", "2\n" }, { read "/alloc/data/x", read "/one/local/y" })
    assert.is_nil(io.open(root .. "/one/secrets/z"))
  end)
end)

describe("ports in the host's own network", function()
  it("lead nowhere but to themselves, and are told as such", function()
    local engine = assert(dockrun.connect { endpoint = engines.shared().endpoint })
    local child <close> = jobs.start(engines.shared().endpoint, jobs.text {
      name = jobs.unique "host", image = "busybox:1", command = "sleep 600", config = "network_mode = 'host'",
      resources = "memory = 32, network = { dynamic_ports = { 6379 }, port = { web = { to = 80 } } }",
    })
    local _ <close> = child.file
    local started, env = child:event "started", {}
    for _, port in ipairs(started.ports) do
      assert.equal(port.host_port, port.container_port)
      env["NOMAD_PORT_" .. port.label] = tostring(port.host_port)
    end
    local container = assert(engine:container_inspect(started.container_id))
    for _, line in ipairs(container.Config.Env) do
      local name, value = line:match "^(.-)=(.*)$"
      if env[name] then env[name] = env[name] == value and true or value end
    end
    assert.same({ NOMAD_PORT_6379 = true, NOMAD_PORT_web = true }, env)
    assert.same({}, container.HostConfig.PortBindings or {})
    child:kill "SIGINT"
    child:wait()
  end)
end)

describe("dynamic ports", function()
  it("come from the range that the agent has", function()
    local endpoint = engines.shared().endpoint
    local from = free_ports(1)[1] // 10 * 10
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "range", image = "busybox:1", command = "true",
      resources = "memory = 32, network = { dynamic_ports = { 'a', 'b', 'c' } }",
    }, { "--set", "ports.from=" .. from, "--set", "ports.to=" .. from + 9 })
    assert.equal(0, result.code, result.stderr)
    for _, port in ipairs(result.by.started.ports) do assert.is_true(port.host_port >= from and port.host_port <= from + 9) end
  end)
end)
