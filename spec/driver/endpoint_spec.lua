-- Where dockrun looks for its engine, and what it tells of the node that it finds there.
local cgroup = require "dockrun.core.cgroup"
local dockrun = require "dockrun"
local endpoint = require "dockrun.driver.endpoint"
local engines = require "spec.engine"
local image = require "dockrun.driver.image"
local options = require "dockrun.options"
local pl_dir = require "pl.dir"
local pl_file = require "pl.file"
local process = require "spec.process"
local uv = require "luv"

describe("the engine's endpoint", function()
  local home

  before_each(function() home = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-home-XXXXXX")) end)
  after_each(function() pl_dir.rmtree(home) end)

  -- What the options and the environment come to.
  local function resolve(set, env)
    local all = options.new()
    for name, value in pairs(set) do all[name] = value end
    return endpoint.resolve(all, function(name) return (env or {})[name] end)
  end

  -- A context as `docker context create` leaves it.
  local function write_context(name, host, with_tls)
    local at = "f00d" .. name
    assert(pl_dir.makepath(("%s/contexts/meta/%s"):format(home, at)))
    pl_file.write(("%s/contexts/meta/%s/meta.json"):format(home, at),
      dockrun.json.encode { Name = name, Endpoints = { docker = { Host = host, SkipTLSVerify = false } } })
    for _, file in ipairs(with_tls or {}) do
      assert(pl_dir.makepath(("%s/contexts/tls/%s/docker"):format(home, at)))
      pl_file.write(("%s/contexts/tls/%s/docker/%s.pem"):format(home, at, file), "")
    end
  end

  it("is docker.endpoint, whatever the environment says", function()
    assert.same({ endpoint = "unix:///var/run/docker.sock" }, resolve({}, { DOCKER_HOST = "tcp://elsewhere:1" }))
    assert.same({ endpoint = "tcp://here:2" }, resolve({ ["docker.endpoint"] = "tcp://here:2" }))
    assert.same({ endpoint = "tcp://here:2" }, resolve { ["docker.endpoint"] = "tcp://here:2", context = "default" })
    assert.same({ endpoint = "tcp://here:2", tls = { ca = "/ca.pem" } },
      resolve { ["docker.endpoint"] = "tcp://here:2", ["docker.tls.ca"] = "/ca.pem" })
  end)

  it("is the environment's with --dev, with its certificates", function()
    local dev = { dev = true, ["docker.endpoint"] = "tcp://here:2" }
    assert.same({ endpoint = "tcp://here:2" }, resolve(dev, { DOCKER_HOST = "" }))
    assert.same({ endpoint = "tcp://there:1" }, resolve(dev, { DOCKER_HOST = "tcp://there:1" }))
    local files = { ca = "/c/ca.pem", cert = "/c/cert.pem", key = "/c/key.pem", insecure = false }
    local env = { DOCKER_HOST = "tcp://there:1", DOCKER_CERT_PATH = "/c", DOCKER_TLS_VERIFY = "1" }
    assert.same({ endpoint = "tcp://there:1", tls = files }, resolve(dev, env))
    env.DOCKER_TLS_VERIFY, files.insecure = "", true
    assert.same({ endpoint = "tcp://there:1", tls = files }, resolve(dev, env))
    env.DOCKER_TLS_VERIFY, env.DOCKER_CERT_PATH, env.HOME, files.insecure = "1", "", "/h", false
    files.ca, files.cert, files.key = "/h/.docker/ca.pem", "/h/.docker/cert.pem", "/h/.docker/key.pem"
    assert.same({ endpoint = "tcp://there:1", tls = files }, resolve(dev, env))
  end)

  it("is a docker context's, with its certificates", function()
    write_context("plain", "unix:///plain.sock")
    write_context("safe", "tcp://safe:1", { "ca", "cert", "key" })
    write_context("open", "tcp://open:1", { "ca" })
    assert.same({ endpoint = "unix:///plain.sock" }, resolve({ context = "plain" }, { DOCKER_CONFIG = home }))
    local files = home .. "/contexts/tls/f00dsafe/docker/"
    assert.same({
      endpoint = "tcp://safe:1",
      tls = { ca = files .. "ca.pem", cert = files .. "cert.pem", key = files .. "key.pem", insecure = false },
    }, resolve({ context = "safe" }, { DOCKER_CONFIG = home }))
    assert.same({ endpoint = "tcp://open:1", tls = { ca = home .. "/contexts/tls/f00dopen/docker/ca.pem", insecure = false } },
      resolve({ context = "open" }, { DOCKER_CONFIG = home }))
    local found, err = resolve({ context = "other" }, { DOCKER_CONFIG = home })
    assert.is_nil(found)
    assert.matches("no docker context 'other' under " .. home, err.message, 1, true)
  end)

  it("that the environment names is ignored with one line, or used with --dev", function()
    local env = { DOCKER_HOST = engines.shared().endpoint, DOCKER_CONFIG = home }
    local nowhere = "unix://" .. home .. "/none.sock"
    local ignored = process.run({ "status", "--endpoint", nowhere, "--state-dir", home }, { env = env })
    assert.equal(3, ignored.code)
    assert.equal(("dockrun: warn: DOCKER_HOST set but ignored without --dev; the engine is %s"):format(nowhere),
      ignored.stderr:match "^[^\n]+")
    local used = process.run({ "status", "--dev", "--endpoint", nowhere, "--state-dir", home }, { env = env })
    assert.same({ 0, "" }, { used.code, used.stderr })
    assert.equal("", process.run({ "version" }, { env = { DOCKER_HOST = "" } }).stderr)
  end)

  it("of a context reaches the engine", function()
    write_context("mine", engines.shared().endpoint)
    local result = process.run({ "--context", "mine", "status", "--state-dir", home }, { env = { DOCKER_CONFIG = home } })
    assert.equal(0, result.code, result.stderr)
    result = process.run({ "--context", "yours", "status", "--state-dir", home }, { env = { DOCKER_CONFIG = home } })
    assert.equal(2, result.code)
    assert.matches("no docker context 'yours'", result.stderr)
  end)
end)

describe("the fingerprint", function()
  it("tells what the node and its engine are", function()
    local e = engines.shared()
    local engine = assert(dockrun.connect { endpoint = e.endpoint })
    local result = process.run { "fingerprint", "--json", "--endpoint", e.endpoint }
    assert.equal(0, result.code, result.stderr)
    local told = assert(dockrun.json.decode(result.stdout))
    local bridge = assert(engine:network_inspect "bridge").IPAM.Config[1]
    for name, value in pairs {
      ["driver.docker"] = "1", ["driver.docker.version"] = engine:version().Version, ["driver.docker.api_version"] = engine:api(),
      ["driver.docker.os_type"] = "linux", ["driver.docker.cgroup_version"] = tostring(cgroup.version()),
      ["driver.docker.bridge_ip"] = bridge.Gateway, ["driver.docker.privileged.enabled"] = "false",
      ["driver.docker.volumes.enabled"] = "false", ["kernel.name"] = "linux", ["cpu.numcores"] = #uv.cpu_info(),
      ["memory.totalbytes"] = math.tointeger(uv.get_total_memory()), ["unique.hostname"] = uv.os_gethostname(),
    } do assert.equal(value, told[name], name) end
    assert.matches("%f[%w]runc%f[%W]", told["driver.docker.runtimes"])
    assert.is_true(told["cpu.totalcompute"] >= 100 * told["cpu.numcores"])
    assert.matches("^%d+%.%d+%.%d+%.%d+$", told["unique.network.ip-address"])
    local text = process.run { "fingerprint", "--endpoint", e.endpoint }
    assert.matches("\ndriver%.docker +1\n", text.stdout)
  end)
end)

describe("an image reference", function()
  local digest = "sha256:" .. ("00ff"):rep(16)

  for text, expected in pairs {
    ["redis"] = { "redis", "latest" }, ["redis:7"] = { "redis", "7" }, ["team/redis:7.2-alpine_x"] = { "team/redis", "7.2-alpine_x" },
    ["host:5000/redis"] = { "host:5000/redis", "latest" }, ["host:5000/team/redis:7"] = { "host:5000/team/redis", "7" },
    ["docker://redis:7"] = { "redis", "7" }, ["https://host:5000/redis:7"] = { "host:5000/redis", "7" },
    ["redis@" .. digest] = { "redis", nil, digest }, ["host:5000/redis@" .. digest] = { "host:5000/redis", nil, digest },
  } do
    it("is taken apart: " .. text, function()
      local found = assert(image.parse(text))
      assert.same({ expected[1], expected[2], expected[3] }, { found.name, found.tag, found.digest })
    end)
  end

  for _, text in ipairs { "", "red is", "redis:", "/redis", "redis/", "a//b", "redis@sha256", "redis@sha256:00ff", "-redis" } do
    it(("is none: '%s'"):format(text), function()
      local found, err = image.parse(text)
      assert.is_nil(found)
      assert.matches(("'%s' is not an image reference"):format(text), err.message, 1, true)
    end)
  end
end)
