-- An engine that is reached through a real sshd, which belongs to the spec: its port, keys and configuration are its own.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local pl_dir = require "pl.dir"
local pl_file = require "pl.file"
local process = require "spec.process"
local uv = require "luv"

-- Keys of the host, of who may come in and of a stranger; then sshd itself, in the foreground.
local MAKE_KEYS = [[
set -e
for key in host key stranger; do ssh-keygen -q -t ed25519 -N '' -f $key; done
cp key.pub authorized_keys
echo "[127.0.0.1]:$1 $(cut -d' ' -f1,2 host.pub)" >known_hosts
mkdir -p /run/sshd # where sshd locks itself up until someone has logged in
]]

local SERVER = [[
ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s/authorized_keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
KbdInteractiveAuthentication no
UsePAM no
]]

local CLIENT = [[
Host engine-host
  HostName 127.0.0.1
  Port %d
  User root
Host *
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s/known_hosts
]]

local function free_port()
  local tcp = uv.new_tcp()
  assert(tcp:bind("127.0.0.1", 0))
  local port = tcp:getsockname().port
  tcp:close()
  return port
end

-- The processes whose command line matches.
local function find(pattern) return process.run({ "-f", pattern }, { program = "pgrep" }).stdout end

describe("an engine behind ssh", function()
  local directory, port, server, socket, endpoint

  setup(function()
    directory = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-sshd-XXXXXX"))
    port = free_port()
    local made = process.run({ "-c", MAKE_KEYS, "sh", tostring(port) }, { program = "sh", cwd = directory })
    assert(made.code == 0, made.stderr)
    pl_file.write(directory .. "/server", SERVER:format(port, directory, directory))
    pl_file.write(directory .. "/client", CLIENT:format(port, directory .. "/key", directory))
    pl_file.write(directory .. "/stranger-client", CLIENT:format(port, directory .. "/stranger", directory))
    server = process.start({ "-D", "-e", "-f", directory .. "/server" }, { program = "/usr/sbin/sshd" })
    server:wait_for "Server listening"
    local engine = engines.shared()
    engines.image(engine, "busybox:1")
    socket = engine.endpoint:match "^unix://(.*)$"
    endpoint = ("ssh://root@127.0.0.1:%d%s"):format(port, socket)
  end)

  teardown(function()
    if server then server:close() end
    for pid in find(directory .. "/dockrun-ssh-"):gmatch "%d+" do uv.kill(tonumber(pid), "sigkill") end -- of a spec that failed
    pl_dir.rmtree(directory)
  end)

  -- A temporary directory of their own, so that what is left behind is seen.
  local function words_for(at, words, command)
    local set = "docker.ssh=" .. (command or ("ssh -F %s/client"):format(directory))
    return { "--endpoint", at, "--state-dir", jobs.state_dir, "--set", set, table.unpack(words) }
  end

  local function run(words, at, command, opts)
    opts = opts or {}
    opts.env = { TMPDIR = directory }
    return process.run(words_for(at or endpoint, words, command), opts)
  end

  -- Processes and directories of links of ours.
  local function links()
    return select(2, find(directory .. "/dockrun-ssh-"):gsub("%d+\n", "")) + #pl_dir.getdirectories(directory)
  end

  local function none_left()
    eventually("no link is left", function() return links() == 0 end)
  end

  it("runs a job to its end, under its own name", function()
    local name = jobs.unique "ssh"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "echo over ssh; exit 7" })
    local _ <close> = file
    local result = run { "run", path }
    assert.equal(1, result.code, result.stderr)
    assert.matches("over ssh", result.stdout)
    none_left()
  end)

  it("executes commands in a task, and tells of it", function()
    local name = jobs.unique "ssh"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = file
    local _ <close> = setmetatable({}, { __close = function() run { "stop", name } end })
    assert.equal(0, run({ "run", "-d", path }).code)
    local input = ("0123456789abcde\n"):rep(65536)
    local result = run({ "exec", "-i", name, "--", "sh", "-c", "wc -c; echo err >&2; exit 7" }, nil, nil, { stdin = input })
    assert.same({ 7, #input .. "\n", "err\n" }, { result.code, result.stdout, result.stderr })
    assert.matches("running", run({ "status", name }).stdout)
    result = run { "stats", name }
    assert.equal(2, result.code)
    assert.matches("needs an engine on this host", result.stderr)
    local elsewhere = jobs.dockrun(engines.shared().endpoint, { "run", "-d", path })
    assert.matches("runs on another engine, " .. endpoint, elsewhere.stderr, 1, true)
    none_left()
  end)

  for _, how in ipairs { "ignore", "block" } do
    it(("is reached by a process that was started to %s SIGCHLD"):format(how), function()
      local words = words_for(endpoint, { "fingerprint" })
      local result = process.run({ ("--%s-signal=CHLD"):format(how), process.program, table.unpack(words) },
        { program = "env", env = { TMPDIR = directory } })
      assert.matches("driver%.docker +1\n", result.stdout, result.stderr)
      none_left()
    end)
  end

  it("is named by a host of ssh's configuration", function()
    local result = run({ "fingerprint" }, "ssh://engine-host" .. socket)
    assert.matches("driver%.docker +1\n", result.stdout, result.stderr)
  end)

  for _, case in ipairs {
    { "a host that refuses", "ssh://root@127.0.0.1:1", "port 1: Connection refused" },
    { "a name that is no host's", "ssh://no-such-host.invalid", "no-such-host.invalid" },
    { "a socket that is not there", "ssh://engine-host/no/such.sock", "nothing answers at /no/such.sock there: channel" },
    { "a key that nobody knows", "ssh://engine-host", "Permission denied (publickey)", "ssh -F DIR/stranger-client" },
    { "a host whose key is not the known one", "ssh://engine-host", "Host key verification failed",
      "ssh -F DIR/client -o UserKnownHostsFile=/dev/null" },
    { "no ssh", "ssh://engine-host", "/no/such/ssh: not found", "/no/such/ssh" },
  } do
    local what, at, message, command = table.unpack(case)
    it("tells in ssh's words of " .. what, function()
      local result = run({ "gc" }, at, command and command:gsub("DIR", directory))
      assert.same({ 3, "" }, { result.code, result.stdout }, result.stderr)
      assert.matches(("error: cannot reach the Docker engine at %s: "):format(at), result.stderr, 1, true)
      assert.matches(message, result.stderr, 1, true)
      none_left()
    end)
  end

  for at, why in pairs { ["ssh://me:secret@host"] = "a password has no place in it", ["ssh:///socket"] = "it names no host" } do
    it("is not named by " .. at, function()
      local result = run({ "gc" }, at)
      assert.equal(2, result.code)
      assert.matches(why, result.stderr, 1, true)
      none_left()
    end)
  end

  -- A script that tells, on a line each, when the engine begins and ceases to answer.
  local function watcher()
    return process.start(words_for(endpoint, { "-e", [[
      local dockrun = require "dockrun"
      local engine, before = assert(dockrun.connect()), nil
      while true do
        local now = engine:system_ping() and "up" or "down"
        if now ~= before then print(now) io.stdout:flush() end
        before = now
        dockrun.sleep(0.02)
      end]] }), { env = { TMPDIR = directory } })
  end

  it("is reached anew after the connection broke", function()
    local child <close> = watcher()
    local line = child:lines()
    assert.equal("up", line())
    assert(uv.kill(tonumber(find("^ssh .*" .. directory .. "/dockrun-ssh-"):match "^(%d+)\n$"), "sigkill"))
    assert.same({ "down", "up" }, { line(), line() })
    child:kill "SIGTERM"
    child:wait()
    none_left()
  end)

  it("is left without a trace by a dockrun that was killed", function()
    local child <close> = watcher()
    child:wait_for "up"
    assert.is_true(links() > 0)
    child:kill "SIGKILL"
    none_left()
  end)

  it("is left without a trace by a state that is closed", function()
    local result = run { "-e", [[assert(require("dockrun").connect():system_ping()) os.exit(3, true)]] }
    assert.same({ 3, "" }, { result.code, result.stderr })
    none_left()
  end)

  it("is reached to the end when a Ctrl-C stops the job", function()
    local name = jobs.unique "ssh"
    local path, file = jobs.write(jobs.text { name = name, image = "busybox:1", command = "exec sleep 600" })
    local _ <close> = file
    local child <close> = process.start({ process.program, table.unpack(words_for(endpoint, { "run", "--json", path })) },
      { program = "setsid", env = { TMPDIR = directory } })
    child:wait_for '"event":"started"'
    assert(uv.kill(-child.pid, "sigint")) -- as a terminal sends it: to all of the group
    assert.equal(130, child:wait().code)
    assert.same({}, jobs.containers(assert(dockrun.connect { endpoint = engines.shared().endpoint }), name))
    none_left()
  end)
end)
