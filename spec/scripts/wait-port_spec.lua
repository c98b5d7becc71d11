-- scripts/wait-port.lua, against listeners of this process.
local dockrun = require "dockrun"
local process = require "spec.process"
local uv = require "luv"

describe("wait-port.lua", function()
  local sockets

  before_each(function() sockets = {} end)
  after_each(function()
    for _, socket in ipairs(sockets) do
      if not socket:is_closing() then socket:close() end
    end
  end)

  -- A port of this process (on 127.0.0.1 by default) that refuses connections, and a function that opens it: then each
  -- client's first data is answered with reply(number of earlier clients, data).
  local function reserve(reply, ip)
    ip = ip or "127.0.0.1"
    local server, served = uv.new_tcp(), 0
    sockets[#sockets + 1] = server
    assert(server:bind(ip, 0))
    local function open()
      assert(server:listen(16, function()
        local client = uv.new_tcp()
        sockets[#sockets + 1] = client
        server:accept(client)
        client:read_start(function(_, data)
          local answer = data and reply and reply(served, data)
          if not answer then return end
          served = served + 1
          client:write(answer, function() client:close() end)
        end)
      end))
    end
    return ("%s:%d"):format(ip, server:getsockname().port), open
  end

  local function opened(...)
    local address, open = reserve(...)
    open()
    return address
  end

  local function status(code) return ("HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n"):format(code) end

  local function wait_port(...) return process.run { "scripts/wait-port.lua", ... } end

  it("ends at once if the port answers", function()
    local address = opened()
    local result = wait_port(address)
    assert.equal(0, result.code, result.stderr)
    assert.equal(address, result.stdout:match "^(%S+) answers after %d+%.%d s\n$")
  end)

  it("waits for a port that opens later", function()
    local address, open = reserve()
    local child <close> = process.start { "scripts/wait-port.lua", address }
    dockrun.sleep(0.5)
    assert.is_nil(child.result)
    open()
    local result = child:wait()
    assert.equal(0, result.code, result.stderr)
    assert.matches("answers after", result.stdout)
  end)

  it("tries every address of a name", function()
    local hosts = os.tmpname()
    local file = assert(io.open(hosts, "w"))
    file:write "127.0.0.1 both.test\n127.0.0.2 both.test\n"
    file:close()
    finally(function() os.remove(hosts) end)
    local address = opened(nil, "127.0.0.2"):gsub("^[^:]+", "both.test")
    local script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    local result = process.run({ "--mount", "sh", "-c", script, hosts, process.program, "scripts/wait-port.lua",
      "--timeout", "2", address }, { program = "unshare" })
    assert.equal(0, result.code, result.stderr)
  end)

  it("gives up after the time-out and says why", function()
    local address, started = reserve(), dockrun.now()
    local result = wait_port("--timeout", "0.4", address)
    assert.equal(1, result.code)
    assert.equal("", result.stdout)
    assert.equal(address .. " does not answer after 0.4 s: ECONNREFUSED\n", result.stderr)
    assert.is_true(dockrun.now() - started >= 0.4)
  end)

  it("reports a host that does not exist", function()
    local result = wait_port("--timeout", "0", "no-such-host.invalid:80")
    assert.equal(1, result.code)
    assert.matches("does not answer after 0 s: EAI_", result.stderr)
  end)

  describe("--http", function()
    it("expects a status below 400", function()
      local asked = {}
      local address = opened(function(before, request)
        asked[#asked + 1] = request:match "^[^\r]+"
        return status(before < 2 and 503 or 204)
      end)
      local result = wait_port("--http", "/healthy?now", address)
      assert.equal(0, result.code, result.stderr)
      assert.same({ "GET /healthy?now HTTP/1.1", "GET /healthy?now HTTP/1.1", "GET /healthy?now HTTP/1.1" }, asked)
    end)

    it("accepts a redirection as an answer, and a path without its slash", function()
      local path
      local address = opened(function(_, request)
        path = request:match "^GET (%S+)"
        return status(302)
      end)
      assert.equal(0, wait_port("--http", "login", address).code)
      assert.equal("/login", path)
    end)

    for _, case in ipairs {
      { "the last status", function() return status(404) end, "status 404" },
      { "that there was no answer", function() end, "no answer in time" },
      { "that the answer was not HTTP", function() return "SSH-2.0-x\r\n" end, "not HTTP/1.1" },
    } do
      local what, reply, reason = table.unpack(case)
      it("reports after the time-out " .. what, function()
        local result = wait_port("--timeout", "0.3", "--http", "/", opened(reply))
        assert.equal(1, result.code)
        assert.matches("does not answer after 0.3 s: .*" .. reason, result.stderr)
      end)
    end
  end)

  for _, case in ipairs {
    { "no port", { "localhost" }, "expected HOST:PORT with a port from 1 to 65535, got 'localhost'" },
    { "a port that cannot be", { "localhost:65536" }, "got 'localhost:65536'" },
    { "port 0", { "localhost:0" }, "got 'localhost:0'" },
    { "an invalid time-out", { "--timeout", "soon", "localhost:1" }, "a number of seconds, got 'soon'" },
    { "no target", {}, "missing argument 'target'" },
  } do
    local what, args, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = wait_port(table.unpack(args))
      assert.equal(2, result.code)
      assert.matches(message, result.stderr, 1, true)
    end)
  end
end)
