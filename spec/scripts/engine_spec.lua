-- scripts/engine and scripts/registry, through spec/engine.lua: their service, and that they leave nothing behind.
local docker = require "dockrun.core.docker"
local engine = require "spec.engine"
local eventually = require "spec.eventually"
local uv = require "luv"

local function connect(e) return assert(docker.connect { endpoint = e.endpoint }) end

-- Runs a command of busybox; returns the container's id and its first process.
local function run(api, body)
  body.Image = "busybox:1"
  local id = assert(api:container_create { body = body }).Id
  assert(api:container_start(id))
  return id, assert(api:container_inspect(id)).State.Pid
end

local function output_of(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  return (pipe:read "a")
end

local function exists(path) return uv.fs_stat(path) ~= nil end

-- The bridge of the engine whose script is process `pid`.
local function bridge(pid) return "/sys/class/net/dockrun" .. pid end

local function cgroups(pid) return output_of("find /sys/fs/cgroup -name dockrun" .. pid) end

describe("a private engine", function()
  it("publishes tcp ports of its containers on the host", function()
    local e <close> = engine.start()
    engine.image(e, "busybox:1")
    local api = connect(e)
    local id = run(api, {
      Cmd = { "httpd", "-f", "-h", "/etc" }, ExposedPorts = { ["80/tcp"] = {} },
      HostConfig = { PortBindings = { ["80/tcp"] = { { HostIp = "127.0.0.1", HostPort = "" } } } },
    })
    local port = api:container_inspect(id).NetworkSettings.Ports["80/tcp"][1].HostPort
    local url = ("http://127.0.0.1:%s/hostname"):format(port)
    assert.equal(id:sub(1, 12), eventually("an answer of httpd", function()
      return output_of("busybox wget -qO- " .. url):match "^(%x+)\n$"
    end))
  end)

  for _, signal in ipairs { "none", "sigkill" } do
    it("leaves nothing behind if dockerd gets the signal "  .. signal, function()
      local e <close> = engine.start()
      engine.image(e, "busybox:1")
      local api, script = connect(e), e.process:get_pid()
      local network = assert(api:network_create { body = { Name = "n" } }).Id
      local _, first = run(api, { Cmd = { "sleep", "600" }, HostConfig = { NetworkMode = "n" } })
      local paused, second = run(api, { Cmd = { "sleep", "600" } })
      assert(api:container_pause(paused))
      local traces = {
        bridge(script), "/sys/class/net/br-" .. network:sub(1, 12), e.dir, "/proc/" .. e.pid,
        "/proc/" .. first .. "/exe", "/proc/" .. second .. "/exe",
      }
      for _, path in ipairs(traces) do assert.is_true(exists(path), path) end
      assert.not_equal("", cgroups(script))

      if signal ~= "none" then e:kill(signal) end
      e:stop()
      for _, path in ipairs(traces) do assert.is_false(exists(path), path) end
      assert.equal("", cgroups(script))
    end)
  end

  it("is away after dockerd is killed, and comes back with its images and its live containers", function()
    local e <close> = engine.start { args = { "--live-restore" } }
    local image = engine.image(e, "busybox:1")
    local api = connect(e)
    local id, pid = run(api, { Cmd = { "sleep", "600" } })
    e:kill "sigkill"
    assert.equal("unreachable", select(2, api:container_inspect(id)).kind)
    e:restart()
    assert.equal(image, assert(api:image_inspect "busybox:1").Id)
    assert.equal(pid, assert(api:container_inspect(id)).State.Pid)
  end)

  it("ends with its parent, however that ends", function()
    local dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
    local out, said = uv.new_pipe(), ""
    local parent
    parent = uv.spawn("sh", {
      args = { "-c", [[scripts/engine "$1" & echo "pid $!"; wait]], "sh", dir }, stdio = { nil, out, 2 },
    }, function() parent:close() end)
    out:read_start(function(_, data)
      if data then said = said .. data else out:close() end
    end)
    eventually("ready", function() return said:find "ready" end)
    local script = said:match "pid (%d+)"
    assert.is_true(exists(bridge(script)))
    parent:kill "sigkill"
    eventually("the end of the script", function() return not exists("/proc/" .. script .. "/exe") end)
    assert.is_false(exists(bridge(script)))
    assert.same({ "log" }, require("pl.tablex").map(require("pl.path").basename, require("pl.dir").getfiles(dir)))
    require("pl.dir").rmtree(dir)
  end)

  it("refuses a directory whose sockets' paths would be too long", function()
    local said = output_of("scripts/engine /tmp/" .. ("x"):rep(80))
    assert.matches("is too long for a unix socket (107 bytes); take a shorter DIR", said, 1, true)
  end)
end)

describe("a private registry", function()
  it("stores images of an engine and serves them", function()
    local e, registry <close> = engine.shared(), engine.start_registry()
    local api, name = connect(e), registry.address .. "/tools/busybox"
    engine.image(e, name .. ":1", { changes = { "ENV LEVEL=info" } })
    local function drain(lines)
      for line in assert(lines) do assert.is_nil(line.error) end
    end
    drain(api:image_push(name, { tag = "1", auth = {} }))
    assert(api:image_remove(name .. ":1"))
    drain(api:image_pull { fromImage = name, tag = "1" })
    assert.same({ "LEVEL=info" }, assert(api:image_inspect(name .. ":1")).Config.Env)
    assert(api:image_remove(name .. ":1"))
  end)

  it("leaves nothing behind", function()
    local registry = engine.start_registry()
    registry:stop()
    assert.is_false(exists(registry.dir))
    assert.matches("Connection refused", output_of(("busybox wget -qO- http://%s/v2/"):format(registry.address)))
  end)
end)
