-- The example of the documentation, wholly: from its file, with an image from a real registry, to a service with its ports
-- and limits, and back to nothing.
local dir = require "pl.dir"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

local MB = 1024 * 1024

-- Stands for redis: tells by HTTP, on each of its ports, what its environment and arguments are.
local ENTRYPOINT = [[
mkdir /www && env >/www/env && echo "$0:$#:$1:$2" >/www/args
trap 'exit 7' TERM
for port in 6379 $(env | sed -n 's/^NOMAD_PORT_.*=//p' | sort -u); do httpd -p $port -h /www; done
while :; do sleep 1 & wait; done]]

-- Sends every datagram that reaches one of the ports back where it came from.
local ECHO = [[
local uv = require "luv"
for _, port in ipairs(arg) do
  local socket = uv.new_udp()
  assert(socket:bind("0.0.0.0", tonumber(port)))
  socket:recv_start(function(_, data, from) if data then socket:send(data, from.ip, from.port, function() end) end end)
end
print "ready"
io.stdout:flush()
require("dockrun").sleep(600)]]

local JOB = [[
return job %q {
  type = "service",                         -- or "batch"
  meta = { owner = "platform" },
  constraint = { attribute = "$attr.kernel.name", value = "linux" },
  group "redis" {
    count = 2,
    restart = { attempts = 3, interval = "5m", delay = "15s", mode = "delay" },
    task "redis" {
      driver = "docker",
      config = { image = %q, command = "redis-server", args = { "--save", "" }, network_mode = "bridge" },
      env = { LEVEL = "info" },
      resources = { cpu = 500, memory = 256, network = { mbits = 10, dynamic_ports = { 6379, "admin" }, reserved_ports = { %d } } },
      hooks = { prestart = function(task, container) container.Labels.team = "x" end },
    },
  },
}]]

-- A port outside of the range of dynamic ports that is free for tcp and udp.
local function free_port()
  for _ = 1, 100 do
    local port = math.random(10000, 19999)
    if dockrun.ports.probe("0.0.0.0", port) then return port end
  end
  error "no free port"
end

local function get(port, path)
  return eventually(("port %d answers"):format(port), function()
    local page = dockrun.http.request { url = ("http://127.0.0.1:%d/%s"):format(port, path), timeout = 2 }
    return page and page.status == 200 and page.body
  end)
end

-- What comes back by UDP, which may lose what is sent.
local function echo(port, text)
  local socket, answers = uv.new_udp(), dockrun.queue()
  local _ <close> = setmetatable({}, { __close = function() socket:close() end })
  assert(socket:bind("127.0.0.1", 0))
  assert(socket:recv_start(function(_, data) if data then answers:push(data) end end))
  for _ = 1, 25 do
    socket:send(text, "127.0.0.1", port, function() end)
    local answer = answers:pop(0.2)
    if answer then return answer end
  end
  return nil
end

-- The host's processes whose command line has this word in it.
local function processes(word)
  local found = {}
  for _, path in ipairs(dir.getdirectories "/proc") do
    local file = path:find "/%d+$" and io.open(path .. "/cmdline")
    local words = file and file:read "a"
    if file then file:close() end
    if words and words:find("\0" .. word .. "\0", 1, true) then found[#found + 1] = words:gsub("\0", " ") end
  end
  return found
end

local function mounts()
  local file <close> = assert(io.open "/proc/self/mountinfo")
  return file:read "a"
end

describe("the documentation's example", function()
  local engine, endpoint, image, name, place

  setup(function()
    endpoint = engines.shared().endpoint
    engine = assert(dockrun.connect { endpoint = endpoint })
    image = engines.registry().address .. "/example/redis:7"
    local repo = image:match "^(.*):"
    engines.image({ endpoint = endpoint }, image, {
      changes = { ("ENTRYPOINT %s"):format(dockrun.json.encode { "/bin/sh", "-c", ENTRYPOINT }) },
    })
    for line in assert(engine:image_push(repo, { tag = "7" })) do assert(not line.error, line.error) end
    assert(engine:image_remove(image))
    name = jobs.unique "cache"
    place = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-example-XXXXXX"))
  end)

  teardown(function() dir.rmtree(place) end)

  -- All that the engine has, by the ids.
  local function inventory()
    local ids = {}
    for _, one in ipairs(assert(engine:container_list { all = true })) do ids[#ids + 1] = one.Id end
    for _, one in ipairs(assert(engine:image_list { all = true })) do ids[#ids + 1] = one.Id end
    for _, one in ipairs(assert(engine:network_list())) do ids[#ids + 1] = one.Id end
    for _, one in ipairs(assert(engine:volume_list()).Volumes or {}) do ids[#ids + 1] = one.Name end
    table.sort(ids)
    return ids
  end

  it("runs with its ports, limits and environment, and leaves nothing", function()
    local reserved, before = free_port(), inventory()
    local path = place .. "/cache.lua"
    do
      local file <close> = assert(io.open(path, "w"))
      file:write((JOB:format(name, image, reserved)))
    end
    local temporary = place .. "/tmp"
    assert(uv.fs_mkdir(temporary, 448))
    local child <close> = process.start({
      "run", "--json", "--endpoint", endpoint, "--state-dir", place .. "/state", path,
    }, { env = { TMPDIR = temporary } })
    local function event(wanted)
      child:wait_for(('"event":"%s"'):format(wanted))
      for line in child.stdout:gmatch "([^\n]+)\n" do
        local one = assert(dockrun.json.decode(line))
        if one.event == wanted then return one end
      end
    end
    local started, failed = event "started", event "failed"

    -- Of two instances on one host, one cannot have the reserved port, and is told who has.
    assert.matches(("port %d .* is held by %s.redis[%d].redis"):format(reserved, name:gsub("%-", "%%-"), started.index or 0)
      :gsub("%[%d%]", "%%[%%d%%]"), failed.message)
    assert.not_equal(started.alloc, failed.alloc)

    local container = assert(engine:container_inspect(started.container_id))
    assert.equal(image, container.Config.Image)
    assert.same({ "redis-server", "--save", "" }, container.Config.Cmd)
    assert.equal("x", container.Config.Labels.team)
    assert.equal("redis-" .. started.alloc, container.Name:sub(2))
    local host = container.HostConfig
    assert.same({ 256 * MB, 256 * MB, 500, "bridge" }, { host.Memory, host.MemorySwap, host.CpuShares, host.NetworkMode })
    local stat = assert(dockrun.cgroup.read(container.State.Pid))
    assert.equal(256 * MB, stat.memory.limit)
    if stat.memory.swap_limit then assert.equal(256 * MB, stat.memory.swap_limit) end
    if stat.version == 1 then assert.equal(500, stat.cpu.shares) end

    -- Each port, by tcp and by udp.
    local inside = { "-t", tostring(container.State.Pid), "-n", process.program, "-e", ECHO }
    for _, port in ipairs(started.ports) do inside[#inside + 1] = tostring(port.container_port) end
    local echoes <close> = process.start(inside, { program = "nsenter" })
    echoes:wait_for "ready"
    local ports, numbers = {}, {}
    for _, port in ipairs(started.ports) do
      ports[port.label], numbers[#numbers + 1] = port, port.host_port
      assert.same({ "tcp", "udp" }, port.protocols)
      for _, protocol in ipairs(port.protocols) do
        local bound = container.NetworkSettings.Ports[("%d/%s"):format(port.container_port, protocol)]
        assert.equal(tostring(port.host_port), bound and bound[1].HostPort)
      end
      assert.equal("taken", select(2, dockrun.ports.probe("0.0.0.0", port.host_port)).kind)
      assert.equal("redis-server:2:--save:\n", get(port.host_port, "args"))
      assert.equal("ping " .. port.label, echo(port.host_port, "ping " .. port.label))
    end
    assert.equal(3, #numbers)
    local redis, admin, fixed = ports["6379"], ports.admin, ports[tostring(reserved)]
    assert.equal(6379, redis.container_port)
    assert.equal(admin.host_port, admin.container_port)
    assert.same({ reserved, reserved }, { fixed.host_port, fixed.container_port })

    local env = {}
    for line in get(redis.host_port, "env"):gmatch "[^\n]+" do env[line:match "^(.-)="] = line:match "=(.*)$" end
    local index = env.NOMAD_ALLOC_INDEX
    for key, value in pairs {
      NOMAD_IP = redis.ip, NOMAD_PORT_6379 = redis.host_port, NOMAD_PORT_admin = admin.host_port,
      NOMAD_PORT_ADMIN = admin.host_port, NOMAD_HOST_PORT_admin = admin.host_port,
      NOMAD_ADDR_admin = ("%s:%d"):format(admin.ip, admin.host_port), NOMAD_ADDR_6379 = ("%s:%d"):format(redis.ip, redis.host_port),
      ["NOMAD_PORT_" .. reserved] = reserved, NOMAD_MEMORY_LIMIT = 256, NOMAD_CPU_LIMIT = 500, NOMAD_META_OWNER = "platform",
      NOMAD_ALLOC_ID = started.alloc, NOMAD_ALLOC_NAME = ("%s.redis[%s]"):format(name, index), NOMAD_JOB_NAME = name,
      NOMAD_GROUP_NAME = "redis", NOMAD_TASK_NAME = "redis", NOMAD_ALLOC_DIR = "/alloc", NOMAD_TASK_DIR = "/local",
      NOMAD_SECRETS_DIR = "/secrets", LEVEL = "info",
    } do assert.equal(tostring(value), env[key], key) end

    echoes:close()
    child:kill "SIGTERM"
    assert.equal(130, child:wait().code)
    assert.equal(7, event("exited").exit_code)

    assert.same(before, inventory())
    assert.is_falsy(uv.fs_stat("/proc/" .. container.State.Pid .. "/exe"))
    for _, port in ipairs(numbers) do
      assert(dockrun.ports.probe("0.0.0.0", port))
      assert.same({}, processes(tostring(port)))
    end
    assert.same({}, dir.getfiles(temporary))
    for path_left in dir.dirtree(place .. "/state") do
      assert.is_nil(path_left:find(started.alloc, 1, true), path_left)
      assert.is_nil(path_left:find "/jobs/.", path_left)
    end
    assert.is_nil(mounts():find(started.alloc, 1, true))
  end)
end)
