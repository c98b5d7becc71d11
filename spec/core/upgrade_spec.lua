-- Upgraded connections: attach and exec on a real engine, and heads, refusals and breaks as a real one does not send
-- them on cue.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local servers = require "spec.server"

local function frame(stream, text) return string.pack(">BxxxI4", stream, #text) .. text end

-- All that comes until the end, by stream.
local function collect(stream)
  local said = { stdout = "", stderr = "" }
  for text, which in stream do said[which] = said[which] .. text end
  return said
end

-- Reads until what came matches.
local function read_until(stream, pattern)
  local said = ""
  while not said:find(pattern) do
    local text, err = stream:read(30)
    assert(text, err and tostring(err) or "it ended after: " .. said)
    said = said .. text
  end
  return said
end

describe("on a real engine", function()
  local engine, id

  setup(function()
    local shared = engines.shared()
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
    id = assert(engine:container_create { body = {
      Image = "busybox:1", Cmd = { "sleep", "600" }, HostConfig = { NetworkMode = "none" },
    } }).Id
    assert(engine:container_start(id))
  end)

  teardown(function()
    if id then engine:container_remove(id, { force = true }) end
  end)

  local function exec(command, body, start)
    body = body or {}
    body.Cmd, body.AttachStdout, body.AttachStderr = { "sh", "-c", command }, true, true
    local made = assert(engine:exec_create(id, { body = body }))
    return assert(engine:exec_start(made.Id, { body = start or { Tty = body.Tty } })), made.Id
  end

  describe("exec", function()
    it("gives both outputs apart, and its exit code afterwards", function()
      local stream <close>, made = exec "echo out; echo err >&2; exit 7"
      assert.same({ stdout = "out\n", stderr = "err\n" }, collect(stream))
      local seen = assert(engine:exec_inspect(made))
      assert.same({ false, 7 }, { seen.Running, seen.ExitCode })
    end)

    it("takes input, and its end by a half-close, while output still comes", function()
      local stream <close> = exec("sed s/^/got:/; echo after the end", { AttachStdin = true })
      assert.is_true(stream:write "one\n")
      assert.is_true(stream:write "two\n")
      stream:shutdown()
      assert.same({ stdout = "got:one\ngot:two\nafter the end\n", stderr = "" }, collect(stream))
      assert.matches("for reading, or its end was written", select(2, pcall(stream.write, stream, "late")))
    end)

    it("has a terminal where asked, whose size can be changed", function()
      local stream <close>, made = exec("echo ready; read line; stty size; exit 3", { AttachStdin = true, Tty = true })
      read_until(stream, "ready\r\n")
      assert(engine:exec_resize(made, { h = 33, w = 132 }))
      stream:write "go\n"
      assert.matches("33 132\r\n", read_until(stream, "33 %d+\r\n"))
      while stream:read(30) do end
      assert.equal(3, assert(engine:exec_inspect(made)).ExitCode)
    end)

    it("carries megabytes both ways, bytes of all kinds, at the reader's pace", function()
      local stream <close> = exec("cat", { AttachStdin = true })
      local all = {}
      for i = 0, 255 do all[#all + 1] = string.char(i) end
      local piece = table.concat(all):rep(256) -- 64 KiB
      local writer <close> = dockrun.spawn(function()
        for _ = 1, 64 do assert(stream:write(piece)) end
        stream:shutdown()
      end)
      local back, count = {}, 0
      for text, which in stream do
        assert.equal("stdout", which)
        back[#back + 1], count = text, count + #text
      end
      writer:await()
      assert.equal(64 * #piece, count)
      assert.is_true(piece:rep(64) == table.concat(back))
    end)

    it("makes a writer wait where nobody reads on the other side", function()
      local stream <close> = exec("sleep 600", { AttachStdin = true })
      local written = 0
      local writer <close> = dockrun.spawn(function()
        while written < 64 * 1024 * 1024 do
          assert(stream:write(("x"):rep(65536)))
          written = written + 65536
        end
      end)
      local before
      repeat
        before = written
        writer:await(0.3)
      until written == before
      assert.is_true(written < 16 * 1024 * 1024, written .. " bytes went to a program that reads none")
    end)

    it("runs without a connection where detached", function()
      local made = assert(engine:exec_create(id, { body = { Cmd = { "touch", "/tmp/detached" } } }))
      local ok, status = engine:exec_start(made.Id, { body = { Detach = true } })
      assert.same({ true, 200 }, { ok, status })
      repeat local seen = assert(engine:exec_inspect(made.Id)) until not seen.Running
      assert(engine:archive_head(id, { path = "/tmp/detached" }))
    end)

    it("is refused with the engine's words and status, short ones and long ones", function()
      local stream, err = engine:exec_start("none", { body = {} })
      assert.is_nil(stream)
      assert.same({ "engine", 404, "exec_start" }, { err.kind, err.status, err.call })
      assert.matches("No such exec instance", err.message)
      local name = ("long-"):rep(1000)
      stream, err = engine:container_attach(name, { stream = true, stdout = true, timeout = 20 })
      assert.is_nil(stream)
      assert.same({ "engine", 404, "No such container: " .. name }, { err.kind, err.status, err.message })
    end)

    it("is left behind by a close, and the engine goes on", function()
      local stream = exec("read line; echo $line >/tmp/left", { AttachStdin = true })
      stream:write "kept\n"
      stream:close()
      stream:close()
      assert.same({ n = 1 }, table.pack(stream:read()))
      assert.same({ nil, "the stream is closed" }, { (stream:write "x"), select(2, stream:write "x").message })
      local reader <close> = exec "while ! grep -q kept /tmp/left; do sleep 0.05; done 2>/dev/null; cat /tmp/left"
      assert.equal("kept\n", collect(reader).stdout)
    end)
  end)

  describe("attach", function()
    local function container(body)
      body.Image, body.HostConfig = "busybox:1", { NetworkMode = "none" }
      local made = assert(engine:container_create { body = body }).Id
      return made, setmetatable({}, { __close = function() engine:container_remove(made, { force = true }) end })
    end

    it("sees a container from its first byte to its last, with input", function()
      local made <const>, guard <close> = container {
        Cmd = { "sh", "-c", "read line; echo got $line; echo err >&2; cat; exit 4" }, OpenStdin = true, StdinOnce = true,
      }
      assert.truthy(guard)
      local stream <close> = assert(engine:container_attach(made, { stream = true, stdin = true, stdout = true, stderr = true }))
      assert.equal("tcp", stream:headers().upgrade)
      assert(engine:container_start(made))
      stream:write "one\ntwo\n"
      stream:shutdown()
      assert.same({ stdout = "got one\ntwo\n", stderr = "err\n" }, collect(stream))
      assert.equal(4, assert(engine:container_wait(made)).StatusCode)
    end)

    it("gives what was said before, and is a terminal where the container has one", function()
      local made <const>, guard <close> = container {
        Cmd = { "sh", "-c", "echo hello; read line; echo got $line" }, OpenStdin = true, Tty = true, AttachStdin = true,
      }
      assert.truthy(guard)
      assert(engine:container_start(made))
      local stream <close> = assert(engine:container_attach(made, {
        stream = true, logs = true, stdin = true, stdout = true, tty = true,
      }))
      read_until(stream, "hello\r\n")
      assert(engine:container_resize(made, { h = 20, w = 50 }))
      stream:write "one\n"
      read_until(stream, "got one\r\n")
      assert.is_nil((stream:read(30)))
    end)

    it("ends when the container is killed", function()
      local made <const>, guard <close> = container { Cmd = { "sleep", "600" } }
      assert.truthy(guard)
      assert(engine:container_start(made))
      local stream <close> = assert(engine:container_attach(made, { stream = true, stdout = true }))
      assert.equal("timeout", select(2, stream:read(0.05)).kind)
      assert(engine:container_kill(made))
      assert.same({ n = 1 }, table.pack(stream:read(30)))
    end)
  end)
end)

describe("an upgraded connection", function()
  local UPGRADED = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

  for _, transport in ipairs { "a unix socket", "TCP" } do
    local opts = { tcp = transport == "TCP" }
    local function server(handle)
      return servers.engine(function(connection, request)
        handle(connection, request)
        return false
      end, opts)
    end

    local function attach(from, options)
      local engine = assert(dockrun.connect { endpoint = from.endpoint })
      options = options or {}
      options.stream = true
      return engine:container_attach("x", options)
    end

    describe("over " .. transport, function()
      it("asks as the engine's documents say, and closes the end of its input alone", function()
        local seen, sent
        local from <close> = server(function(connection, request)
          seen = request
          connection:write(UPGRADED)
          sent = connection:read(5)
          connection:await_end()
          connection:write(frame(1, "last words"))
        end)
        local stream <close> = assert(attach(from, { stdin = true, logs = false }))
        stream:write "hello"
        stream:shutdown()
        assert.same({ "last words", "stdout", n = 2 }, table.pack(stream:read(10)))
        assert.is_nil((stream:read(10)))
        assert.equal("POST /v1.41/containers/x/attach?logs=false&stream=true&stdin=true HTTP/1.1", seen.line)
        assert.same({ "Upgrade", "tcp", "0" }, { seen.headers.connection, seen.headers.upgrade, seen.headers["content-length"] })
        assert.equal(opts.tcp and from.endpoint:match "//(.*)" or "docker", seen.headers.host)
        assert.equal("hello", sent)
      end)

      it("reads head and frames split at any byte, and what comes in one piece with the head", function()
        local text = "HTTP/1.1 100 Continue\r\n\r\n" .. UPGRADED .. frame(1, "out") .. frame(2, "err")
        for _, size in ipairs { 1, 2, 5, 13, 29, #text } do
          local from <close> = server(function(connection)
            for at = 1, #text, size do
              connection:write(text:sub(at, at + size - 1))
              dockrun.sleep(0)
            end
          end)
          local stream <close> = assert(attach(from))
          assert.same({ stdout = "out", stderr = "err" }, collect(stream))
        end
      end)

      it("is one with an engine that answers 200 and upgrades all the same", function()
        local from <close> = server(function(connection)
          connection:write("HTTP/1.1 200 OK\r\n\r\n" .. frame(1, "old engine"))
        end)
        local stream <close>, status = assert(attach(from))
        assert.equal(200, status)
        assert.equal("old engine", collect(stream).stdout)
      end)

      for what, case in pairs {
        ["with a length"] = "HTTP/1.1 409 Conflict\r\nContent-Length: 22\r\n\r\n{\"message\":\"not now\"}\n",
        ["in chunks"] = "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n"
          .. "5\r\n{\"mes\r\n10;a=b\r\nsage\":\"not now\"}\r\n0\r\n\r\n",
        ["until its end"] = "HTTP/1.1 409 Conflict\r\n\r\n{\"message\":\"not now\"}",
      } do
        it("is refused " .. what .. ", at any split", function()
          for _, size in ipairs { 1, 7, #case } do
            local from <close> = server(function(connection)
              for at = 1, #case, size do
                connection:write(case:sub(at, at + size - 1))
                dockrun.sleep(0)
              end
              if what ~= "until its end" then connection:await_end() end
            end)
            local stream, err = attach(from)
            assert.is_nil(stream)
            assert.same({ "engine", 409, "not now" }, { err.kind, err.status, err.message })
          end
        end)
      end

      for what, case in pairs {
        ["closes without a word"] = { "", "unreachable", "lost the connection" },
        ["closes in the head"] = { "HTTP/1.1 101 UPG", "unreachable", "lost the connection" },
        ["speaks something else"] = { "SSH-2.0-OpenSSH\r\n\r\n", "protocol", "not HTTP/1" },
        ["speaks HTTP/2"] = { "HTTP/2 101 OK\r\n\r\n", "protocol", "not HTTP/1" },
        ["never ends its head"] = { "HTTP/1.1 101 OK\r\nX: " .. ("x"):rep(100000), "protocol", "endless answer" },
        ["breaks its chunks"] = { "HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "protocol", "broken chunks" },
        ["refuses without end"] = { "HTTP/1.1 500 Oh\r\n\r\n" .. ("x"):rep(2000000), "protocol", "endless refusal" },
      } do
        it("is an error where the peer " .. what, function()
          local text, kind, message = table.unpack(case)
          local from <close> = server(function(connection) connection:write(text) end)
          local stream, err = attach(from)
          assert.is_nil(stream)
          assert.equal(kind, err.kind, err.message)
          assert.matches(message, err.message, 1, true)
          assert.matches("the Docker engine at " .. from.endpoint, err.message, 1, true)
        end)
      end

      it("waits for its head no longer than it may, or until a cancel", function()
        local gone = dockrun.queue()
        local from <close> = server(function(connection)
          connection:await_end()
          gone:push(true)
        end)
        local stream, err = attach(from, { timeout = 0.05 })
        assert.is_nil(stream)
        assert.equal("timeout", err.kind)
        assert.is_true(gone:pop(120))
        local call = dockrun.spawn(attach, from)
        assert.is_nil((call:await(0.05)))
        call:cancel "enough"
        assert.equal("enough", select(2, pcall(call.await, call)).message)
        assert.is_true(gone:pop(120))
      end)

      it("makes an engine wait for a slow reader", function()
        local stalled, total, most = dockrun.queue(), 0, 16 * 1024 * 1024
        local from <close> = server(function(connection)
          connection:write(UPGRADED)
          local piece, told = frame(1, ("x"):rep(65536)), false
          while total < most do
            if connection:write(piece, not told and 0.3 or nil) == nil then
              told = true
              stalled:push(total)
            end
            total = total + 65536
          end
          if not told then stalled:push(total) end
        end)
        local stream <close> = assert(attach(from))
        local at = stalled:pop(120)
        assert.is_true(at < most / 2, at .. " bytes were taken off an engine that nobody read")
        assert.equal(most, #collect(stream).stdout)
      end)

      it("gives what came before a break, then the end or the error", function()
        local from <close> = server(function(connection)
          connection:write(UPGRADED .. frame(1, "before") .. frame(1, "half"):sub(1, 10))
          connection:read(1)
          connection:reset()
        end)
        local stream <close> = assert(attach(from, { stdin = true }))
        assert.equal("before", stream:read(10))
        assert.equal("ha", stream:read(10))
        stream:write "x"
        local text, err = stream:read(10)
        assert.is_nil(text)
        assert.is_true(err.kind == "unreachable" or err.message == "the stream ended inside of a frame", tostring(err))
      end)

      it("tells a writer that the peer has gone", function()
        local from <close> = server(function(connection) connection:write(UPGRADED) end)
        local stream <close> = assert(attach(from, { stdin = true }))
        local ok, err
        repeat
          ok, err = stream:write(("x"):rep(65536))
          dockrun.sleep(0)
        until not ok
        assert.equal("unreachable", err.kind)
      end)
    end)
  end

  it("goes where the endpoint's path leads", function()
    local lines = {}
    local from <close> = servers.start(function(connection)
      for request in function() return connection:request() end do
        lines[#lines + 1] = request.line
        if request.line:find "/version" then
          connection:answer '{"ApiVersion":"1.41"}'
        else
          connection:write(UPGRADED)
          return
        end
      end
    end, { tcp = true })
    local engine = assert(dockrun.connect { endpoint = from.endpoint .. "/behind/a/proxy/" })
    assert(engine:container_attach("x")):close()
    assert.same({ "GET /behind/a/proxy/version HTTP/1.1", "POST /behind/a/proxy/v1.41/containers/x/attach HTTP/1.1" }, lines)
  end)
end)
