-- A real engine that listens on TLS alone and wants a certificate of who calls.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local pl_dir = require "pl.dir"
local pl_file = require "pl.file"
local process = require "spec.process"
local uv = require "luv"

-- In a directory: an authority, a certificate of the engine and one of its client, as `docker` names the files. And
-- directories for clients who have not all of that, or not the right one.
local MAKE_CERTIFICATES = [[
set -e
key() { openssl ecparam -genkey -name prime256v1 -noout -out "$1"; }
authority() { # DIRECTORY
  key "$1/ca-key.pem"
  openssl req -x509 -new -key "$1/ca-key.pem" -days 2 -subj "/CN=$1" -out "$1/ca.pem"
}
certify() { # NAME DIRECTORY-OF-AUTHORITY EXTENSIONS
  key "$1-key.pem"
  openssl req -new -key "$1-key.pem" -subj "/CN=$1" -out request.pem
  printf "$3" >extensions
  openssl x509 -req -in request.pem -CA "$2/ca.pem" -CAkey "$2/ca-key.pem" -CAcreateserial -days 2 -extfile extensions -out "$1.pem"
}
mkdir other stranger foreign alone keyless
authority .
authority other
certify server . 'subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth\n'
certify client . 'extendedKeyUsage = clientAuth\n'
certify unknown other 'extendedKeyUsage = clientAuth\n'
mv client.pem cert.pem
mv client-key.pem key.pem
cp other/ca.pem cert.pem key.pem stranger
cp ca.pem foreign
cp unknown.pem foreign/cert.pem
cp unknown-key.pem foreign/key.pem
cp cert.pem key.pem alone
cp ca.pem cert.pem keyless
]]

local function free_port()
  local tcp <close> = setmetatable({ handle = uv.new_tcp() }, { __close = function(self) self.handle:close() end })
  assert(tcp.handle:bind("127.0.0.1", 0))
  return tcp.handle:getsockname().port
end

describe("an engine behind TLS", function()
  local directory, address, engine, name

  setup(function()
    directory = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-tls-XXXXXX"))
    local made = process.run({ "-c", MAKE_CERTIFICATES }, { program = "sh", cwd = directory })
    assert(made.code == 0, made.stderr)
    address = "127.0.0.1:" .. free_port()
    engine = engines.start { args = {
      "--host", "tcp://" .. address, "--tlsverify", "--tlscacert", directory .. "/ca.pem",
      "--tlscert", directory .. "/server.pem", "--tlskey", directory .. "/server-key.pem",
    } }
    engines.image(engine, "busybox:1")
    name = jobs.unique "tls"
  end)

  teardown(function()
    if engine then engine:stop() end
    pl_dir.rmtree(directory)
  end)

  -- dockrun with the environment of someone who uses docker over TLS.
  local function run(words, env, opts)
    opts = opts or {}
    opts.env = { DOCKER_HOST = "tcp://" .. address, DOCKER_TLS_VERIFY = "1", DOCKER_CERT_PATH = directory, HOME = directory }
    for key, value in pairs(env or {}) do opts.env[key] = value end
    return process.run({ "--dev", "--state-dir", directory .. "/state", table.unpack(words) }, opts)
  end

  local function connect(tls)
    tls = tls or { ca = directory .. "/ca.pem", cert = directory .. "/cert.pem", key = directory .. "/key.pem" }
    return assert(dockrun.connect { endpoint = "tcp://" .. address, tls = tls })
  end

  it("runs a job to its end", function()
    local path, file = jobs.write(jobs.text { name = jobs.unique "end", image = "busybox:1", command = "echo over tls; exit 7" })
    local _ <close> = file
    local result = run { "run", path }
    assert.equal(1, result.code, result.stderr)
    assert.matches("over tls", result.stdout)
    assert.matches("exit code 7", result.stdout .. result.stderr)
  end)

  describe("with a task that runs", function()
    setup(function()
      local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
      local _ <close> = file
      local result = run { "run", "-d", path }
      assert(result.code == 0, result.stderr)
    end)

    teardown(function() run { "stop", name } end)

    it("executes commands in it", function()
      local result = run { "exec", name, "--", "sh", "-c", "echo out; echo err >&2; exit 7" }
      assert.same({ 7, "out\n", "err\n" }, { result.code, result.stdout, result.stderr })
    end)

    it("gives a command all of its input, and the end of it", function()
      local input = ("0123456789abcde\n"):rep(256 * 1024)
      local result = run({ "exec", "-i", name, "--", "sh", "-c", "sleep 1; md5sum; echo end" }, {}, { stdin = input })
      local expected = process.run({}, { program = "md5sum", stdin = input })
      assert.same({ 0, expected.stdout .. "end\n", "" }, { result.code, result.stdout, result.stderr })
    end)

    it("takes all that a command says, however slow it is read", function()
      local over_tls = connect()
      local container = over_tls:container_list { filters = { label = { "dockrun.job=" .. name } } }[1]
      local made = assert(over_tls:exec_create(container.Id, {
        body = { Cmd = { "sh", "-c", "yes 0123456789abcde | head -n 131072" }, AttachStdout = true },
      }))
      local stream <close> = assert(over_tls:exec_start(made.Id, { body = {} }))
      dockrun.sleep(0.5)
      local size = 0
      for text in stream do size = size + #text end
      assert.equal(2 * 1024 * 1024, size)
    end)

    it("tells its events", function()
      local over_tls = connect()
      local stream <close> = assert(over_tls:events { filters = { event = { "exec_start" } } })
      assert.equal(0, run({ "exec", name, "--", "true" }).code)
      assert.matches("^exec_start: true", assert(stream:read(30)).Action)
      assert.matches('"started"', run({ "events", "--json", name }).stdout)
    end)
  end)

  it("is reached by a context's https:// and its certificates", function()
    local at = directory .. "/docker/contexts"
    local host = "https://" .. address
    assert(pl_dir.makepath(at .. "/meta/f00d"))
    assert(pl_dir.makepath(at .. "/tls/f00d/docker"))
    pl_file.write(at .. "/meta/f00d/meta.json", dockrun.json.encode { Name = "far", Endpoints = { docker = { Host = host } } })
    for _, file in ipairs { "ca.pem", "cert.pem", "key.pem" } do
      assert(pl_file.copy(directory .. "/" .. file, at .. "/tls/f00d/docker/" .. file))
    end
    local env = { DOCKER_CONFIG = directory .. "/docker" }
    local result = run({ "--context", "far", "fingerprint" }, env)
    assert.matches("driver%.docker +1\n", result.stdout)
    result = run({ "--context", "far", "status" }, env)
    assert.equal(0, result.code, result.stderr)
  end)

  it("is reached by the certificates of the options", function()
    local words = { "--endpoint", "tcp://" .. address, "fingerprint" }
    for _, file in ipairs { "ca", "cert", "key" } do
      table.move({ "--set", ("docker.tls.%s=%s/%s.pem"):format(file, directory, file) }, 1, 2, #words + 1, words)
    end
    local result = process.run(words)
    assert.matches("driver%.docker +1\n", result.stdout, result.stderr)
  end)

  for _, case in ipairs {
    { "an engine of an authority that it does not know", { DOCKER_CERT_PATH = "stranger" }, "cannot trust the certificate of" },
    { "a certificate of an authority that the engine does not know", { DOCKER_CERT_PATH = "foreign" }, "does it take our certificate?" },
    { "a directory of certificates that is not there", { DOCKER_CERT_PATH = "none" }, "/none/cert.pem" },
    { "an authority's certificate that is not there", { DOCKER_CERT_PATH = "alone" }, "/alone/ca.pem" },
    { "a key that is not there", { DOCKER_CERT_PATH = "keyless" }, "/keyless/key.pem" },
    { "the home's certificates, which are not there", { DOCKER_CERT_PATH = "" }, "/.docker/cert.pem" },
    { "a call in plain HTTP", { DOCKER_CERT_PATH = "", DOCKER_TLS_VERIFY = "" }, "Client sent an HTTP request to an HTTPS server" },
  } do
    local what, env, message = table.unpack(case)
    it("fails clearly for " .. what, function()
      if env.DOCKER_CERT_PATH ~= "" then env.DOCKER_CERT_PATH = directory .. "/" .. env.DOCKER_CERT_PATH end
      local result = run({ "gc" }, env)
      assert.same({ 3, "" }, { result.code, result.stdout }, result.stderr)
      assert.matches("the Docker engine at tcp://" .. address, result.stderr, 1, true)
      assert.matches(message, result.stderr, 1, true)
    end)
  end

  it("fails clearly for who shows no certificate", function()
    local answer, err = connect { ca = directory .. "/ca.pem" }:info()
    assert.same({ nil, "unreachable" }, { answer, err.kind })
    assert.matches("does it take our certificate?", err.message, 1, true)
  end)
end)
