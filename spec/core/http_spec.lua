-- HTTP on the loop: plain requests, against servers whose every byte is written here.
local dockrun = require "dockrun"
local servers = require "spec.server"
local uv = require "luv"

local function request(server, options)
  options = options or {}
  options.url = server.url .. (options.path or "/")
  options.path = nil
  options.unix_socket = server.path
  return dockrun.http.request(options)
end

-- Every request gets the same answer, over and over on the same connection.
local function answering(text, opts)
  return servers.start(function(connection)
    while connection:request() do
      if not connection:write(text) then return end
    end
  end, opts)
end

local OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

for _, transport in ipairs { "a unix socket", "TCP" } do
  describe("an HTTP request over " .. transport, function()
    local opts = { tcp = transport == "TCP" }

    it("sends what it is told, and gives status, headers and body", function()
      local seen
      local server <close> = servers.start(function(connection)
        seen = connection:request()
        connection:write "HTTP/1.1 201 Made\r\nX-Kind: of its own\r\nx-kind:twice\r\nContent-Length: 5\r\n\r\nhel\0o"
      end, opts)
      local answer = assert(request(server, {
        method = "PATCH", path = "/a?b=c", body = "x\0y", headers = { ["X-Mine"] = "me", ["X-Empty"] = "" },
      }))
      assert.equal("PATCH /a?b=c HTTP/1.1", seen.line)
      assert.same({ "me", "", "3" }, { seen.headers["x-mine"], seen.headers["x-empty"], seen.headers["content-length"] })
      assert.equal("x\0y", seen.body)
      assert.is_nil(seen.headers.expect)
      assert.same({ 201, "hel\0o", "of its own, twice" }, { answer.status, answer.body, answer.headers["x-kind"] })
    end)

    it("keeps the connection for the next", function()
      local server <close> = answering(OK, opts)
      for _ = 1, 5 do assert.equal("ok", assert(request(server)).body) end
      assert.equal(1, #server.connections)
    end)

    it("takes another connection while one is busy, and both later on", function()
      local gate = dockrun.queue()
      local server <close> = servers.start(function(connection)
        for wanted in function() return connection:request() end do
          if wanted.line:find "slow" then gate:pop() end
          connection:write(OK)
        end
      end, opts)
      local slow = dockrun.spawn(request, server, { path = "/slow" })
      server.arrived:pop(120)
      assert(request(server))
      gate:push(true)
      assert(slow:await(120))
      assert(request(server))
      assert.equal(2, #server.connections)
    end)

    it("goes on with a new connection where the old one was closed meanwhile", function()
      local server <close> = servers.start(function(connection)
        connection:request()
        connection:write(OK)
      end, opts)
      for i = 1, 3 do
        assert.equal("ok", assert(request(server)).body)
        server.arrived:pop(120)
        assert.equal(i, #server.connections)
      end
    end)

    it("reads a body of any framing, split at any byte", function()
      for _, text in ipairs {
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "HTTP/1.1 200 OK\nContent-Length: 4\n\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3;x=y\r\nody\r\n0\r\nTrailer: z\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.0 200 OK\r\n\r\nbody",
      } do
        local server <close> = servers.start(function(connection)
          connection:request()
          for byte in text:gmatch "." do
            connection:write(byte)
            dockrun.sleep(0)
          end
        end, opts)
        local answer = assert(request(server))
        assert.same({ 200, "body" }, { answer.status, answer.body }, text)
      end
    end)

    it("asks for the head alone by HEAD", function()
      local server <close> = answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", opts)
      local answer = assert(request(server, { method = "HEAD" }))
      assert.same({ "", "1000" }, { answer.body, answer.headers["content-length"] })
    end)

    it("gives an answer of an error as an answer", function()
      local server <close> = answering("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nsoon", opts)
      local answer = assert(request(server))
      assert.same({ 503, "soon" }, { answer.status, answer.body })
    end)

    it("takes a large body both ways", function()
      local server <close> = servers.start(function(connection)
        connection:answer(connection:request().body)
      end, opts)
      local body = ("0123456789abcdef"):rep(512 * 1024)
      assert.is_true(body == assert(request(server, { method = "POST", body = body })).body)
    end)

    it("ends by its time-out, and frees the connection", function()
      local gone = dockrun.queue()
      local server <close> = servers.start(function(connection)
        connection:request()
        connection:await_end()
        gone:push(true)
      end, opts)
      local answer, err = request(server, { timeout = 0.05 })
      assert.is_nil(answer)
      assert.equal("timeout", err.kind)
      assert.matches("^no answer in time from " .. server.url:gsub("%p", "%%%0"), err.message)
      assert.is_true(gone:pop(120))
    end)

    it("ends by a cancel, and frees the connection", function()
      local gone = dockrun.queue()
      local server <close> = servers.start(function(connection)
        connection:request()
        connection:write "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        connection:await_end()
        gone:push(true)
      end, opts)
      local fiber = dockrun.spawn(request, server)
      server.arrived:pop(120)
      fiber:cancel "enough"
      local ok, err = pcall(fiber.await, fiber)
      assert.same({ false, "enough" }, { ok, err.message })
      assert.is_true(gone:pop(120))
      local other <close> = answering(OK, opts)
      assert.equal("ok", assert(request(other)).body)
    end)

    local LOST, CHUNKED = "lost the connection to", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for what, case in pairs {
      ["is closed without an answer"] = { "", "unreachable", LOST },
      ["is closed in the head"] = { "HTTP/1.1 200 OK\r\nContent-Le", "unreachable", LOST },
      ["is closed in a body with a length"] = { "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "unreachable", LOST },
      ["is closed in a chunk"] = { CHUNKED .. "ff\r\nhalf", "unreachable", LOST },
      ["is closed before the last chunk"] = { CHUNKED .. "4\r\nhalf\r\n", "unreachable", LOST },
      ["breaks its chunks"] = { CHUNKED .. "xyz\r\n", "unreachable", "chunked-encoding" },
      ["speaks something else"] = { "SSH-2.0-OpenSSH_9.2\r\n", "protocol", "not HTTP" },
      ["sends headers without end"] = { "HTTP/1.1 200 OK\r\n" .. ("X: " .. ("x"):rep(1000) .. "\r\n"):rep(400), "protocol", "headers" },
    } do
      local text, kind, message = table.unpack(case)
      it("is an error of kind " .. kind .. " where the peer " .. what, function()
        local server <close> = servers.start(function(connection)
          connection:request()
          connection:write(text)
        end, opts)
        local answer, err = request(server)
        assert.is_nil(answer)
        assert.equal(kind, err.kind, err.message)
        assert.matches(message, err.message, 1, true)
        assert.matches(server.url, err.message, 1, true)
      end)
    end

    it("is an error where the body is longer than the limit, and stops reading there", function()
      local written = 0
      local server <close> = servers.start(function(connection)
        connection:request()
        connection:write "HTTP/1.1 200 OK\r\n\r\n"
        while written < 1000 and connection:write(("x"):rep(65536)) do written = written + 1 end
      end, opts)
      local answer, err = request(server, { limit = 100000 })
      assert.is_nil(answer)
      assert.same({ "protocol", true }, { err.kind, err.message:find "more than 100000 bytes" ~= nil })
      assert.is_true(written < 1000)
    end)

    it("is an error of kind unreachable where nobody listens", function()
      local server = servers.start(function() end, opts)
      server:close()
      local answer, err = request(server)
      assert.is_nil(answer)
      assert.equal("unreachable", err.kind)
      assert.matches("^cannot reach " .. server.url:gsub("%p", "%%%0"), err.message)
      assert.matches(opts.tcp and "Connection refused$" or "No such file or directory$", err.message)
    end)

    -- The kernel tells of an error while there is still much to read.
    it("reads to the last byte where the peer dies with ours unread", function()
      local size = 3 * 1024 * 1024
      local server <close> = servers.start(function(connection)
        connection:write("HTTP/1.1 200 OK\r\nContent-Length: " .. size .. "\r\n\r\n" .. ("y"):rep(size))
      end, opts)
      local answer, err = request(server, { method = "POST", body = ("x"):rep(100) })
      if opts.tcp and not answer then return assert.equal("unreachable", err.kind) end  -- a reset takes with it what is under way
      assert.equal(size, #assert(answer, err).body)
    end)

    it("does not follow the peer elsewhere", function()
      local server <close> = answering("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", opts)
      assert.equal(302, assert(request(server)).status)
      assert.equal(1, #server.connections)
    end)

    it("is many at once", function()
      local server <close> = answering(OK, opts)
      local calls = {}
      for i = 1, 50 do calls[i] = function() return assert(request(server)).body end end
      for _, body in ipairs(dockrun.all(calls)) do assert.equal("ok", body) end
      assert.is_true(#server.connections <= 50)
    end)
  end)
end

describe("an HTTP request", function()
  it("finds a name, or says that it cannot", function()
    local server <close> = servers.start(function(connection)
      connection:request()
      connection:answer "found"
    end, { tcp = true })
    assert.equal("found", assert(dockrun.http.request { url = (server.url:gsub("127%.0%.0%.1", "localhost")) }).body)
    local answer, err = dockrun.http.request { url = "http://no-such-host.invalid/" }
    assert.is_nil(answer)
    assert.equal("unreachable", err.kind)
    assert.matches("cannot find http://no-such-host.invalid/", err.message, 1, true)
  end)

  for what, case in pairs {
    ["a URL that is none"] = { "http://[", "bad address of" }, ["another protocol"] = { "ftp://localhost/", "ftp" },
    ["a file"] = { "file:///etc/passwd", "file" },
  } do
    it("refuses " .. what, function()
      local answer, err = dockrun.http.request { url = case[1] }
      assert.is_nil(answer)
      assert.equal("invalid", err.kind)
      assert.matches(case[2], err.message, 1, true)
    end)
  end

  for what, case in pairs {
    ["no URL"] = { {}, "'url' is missing" },
    ["a URL of another type"] = { { url = 5 }, "'url' must be a string, not a number" },
    ["a method with a line break"] = { { url = "http://x", method = "GET / HTTP/1.1\r\nX: y" }, "method" },
    ["a header with a line break"] = { { url = "http://x", headers = { A = "b\r\nC: d" } }, "header" },
    ["a header's name with a colon"] = { { url = "http://x", headers = { ["A:"] = "b" } }, "header" },
    ["a negative limit"] = { { url = "http://x", limit = -1 }, "limit" },
    ["a negative time-out"] = { { url = "http://x", timeout = -1 }, "time-out" },
  } do
    it("raises for " .. what, function()
      local ok, err = pcall(dockrun.http.request, case[1])
      assert.is_false(ok)
      assert.matches(case[2], err, 1, true)
    end)
  end

  it("is nothing that a child of this process holds on to", function()
    local gone = dockrun.queue()
    local server <close> = servers.start(function(connection)
      connection:request()
      connection:write "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
      connection:await_end()
      gone:push(true)
    end)
    local call = dockrun.spawn(request, server)
    server.arrived:pop(120)
    local child = assert(uv.spawn("sleep", { args = { "60" } }, function() end))
    call:cancel()
    assert.is_true(gone:pop(120))
    child:kill "sigkill"
    child:close()
  end)

  it("leaves no descriptor behind, however it ends", function()
    local function descriptors()
      collectgarbage()
      local count, entries = 0, assert(uv.fs_scandir "/proc/self/fd")
      while uv.fs_scandir_next(entries) do count = count + 1 end
      return count
    end
    local server <close> = servers.start(function(connection)
      local wanted = connection:request()
      if wanted.line:find "stall" then connection:await_end() end
      if wanted.line:find "reset" then connection:reset() end
    end)
    request(server, { path = "/stall", timeout = 0.01 })
    local before = descriptors()
    for _ = 1, 20 do
      request(server, { path = "/stall", timeout = 0.005 })
      request(server, { path = "/close" })
      request(server, { path = "/reset" })
      local fiber = dockrun.spawn(request, server, { path = "/stall" })
      server.arrived:pop(120)
      fiber:cancel()
      pcall(fiber.await, fiber)
    end
    dockrun.sleep(0.01)
    assert.is_true(descriptors() <= before + 2, descriptors() .. " after " .. before)
  end)
end)
