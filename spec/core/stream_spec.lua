-- Streaming answers and bodies, with back-pressure both ways: against engines that stall, split and break as told here.
local dockrun = require "dockrun"
local servers = require "spec.server"

local CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
local RAW = "application/vnd.docker.raw-stream"

local function frame(stream, text) return string.pack(">BxxxI4", stream, #text) .. text end
local function chunk(text) return ("%x\r\n%s\r\n"):format(#text, text) end

local function connect(server, options)
  options = options or {}
  options.endpoint = server.endpoint
  return assert(dockrun.connect(options))
end

-- An engine that answers every call by these pieces, each in a write of its own, and then ends the answer.
local function streaming(pieces, opts)
  opts = opts or {}
  return servers.engine(function(connection)
    connection:write(CHUNKED:format(opts.type or RAW))
    for _, piece in ipairs(pieces) do
      if piece ~= "" then connection:write(chunk(piece)) end
      dockrun.sleep(0)
    end
    if opts.cut then return false end
    connection:write "0\r\n\r\n"
  end, opts)
end

-- An engine whose answer stays open: `feed` is called with a function that writes a piece.
local function open_ended(feed)
  return servers.engine(function(connection)
    connection:write(CHUNKED:format(RAW))
    feed(function(text, timeout) return connection:write(chunk(text), timeout) end, connection)
    connection:await_end()
    return false
  end)
end

local function split(text, size)
  local pieces = {}
  for at = 1, #text, size do pieces[#pieces + 1] = text:sub(at, at + size - 1) end
  return pieces
end

local function read_all(stream)
  local items = {}
  while true do
    local item = table.pack(stream:read())
    if item[1] == nil then return items, item[2] end
    items[#items + 1] = item
  end
end

describe("a stream of JSON documents", function()
  local text = '{"a":1}\r\n{"b":"\\n"}\n\n{"c":[]}\n[1234567890123456789]'

  it("gives each document and its text, split at any byte, the last one without a line break too", function()
    for _, size in ipairs { 1, 2, 3, 5, 7, 11, #text } do
      local server <close> = streaming(split(text, size))
      local items, err = read_all(assert(connect(server):events()))
      assert.is_nil(err)
      local texts = {}
      for i, item in ipairs(items) do texts[i] = item[2] end
      assert.same({ '{"a":1}', '{"b":"\\n"}', '{"c":[]}', "[1234567890123456789]" }, texts)
      assert.same({ 1, "\n", 1234567890123456789 }, { items[1][1].a, items[2][1].b, items[4][1][1] })
    end
  end)

  it("takes a document as large as it may be, and none that is larger", function()
    for _, size in ipairs { 300 * 1024, 4 * 1024 * 1024 - 4 } do
      local server <close> = streaming { '["' .. ("x"):rep(size) .. '"]\n', "[]\n" }
      local items, err = read_all(assert(connect(server):events()))
      assert.same({ 2, size }, { #items, #items[1][1][1] }, tostring(err))
    end
    local server <close> = streaming { '["' .. ("x"):rep(5 * 1024 * 1024), '"]\n' }
    local items, err = read_all(assert(connect(server):events()))
    assert.same({ 0, "protocol", "a line of more than 4 MiB" }, { #items, err.kind, err.message })
  end)

  it("tells of a line that is none, and goes on behind it", function()
    local server <close> = streaming { '[1]\nno json\n[2]\n' }
    local stream <close> = assert(connect(server):events())
    assert.equal(1, stream:read()[1])
    local item, err = stream:read()
    assert.is_nil(item)
    assert.same({ "protocol", "a line that is not a JSON object (no json)" }, { err.kind, err.message })
    assert.equal(2, stream:read()[1])
    assert.is_nil((stream:read()))
  end)

  it("ends quietly after blank lines", function()
    local server <close> = streaming { "[1]\n", "\r\n\r\n" }
    local items, err = read_all(assert(connect(server):events()))
    assert.same({ 1, nil }, { #items, err })
  end)
end)

describe("a stream of output", function()
  it("gives each stream's text, split at any byte", function()
    local text = frame(1, "out") .. frame(2, "") .. frame(2, "err\n") .. frame(1, ("long "):rep(40))
    for _, size in ipairs { 1, 3, 7, 8, 9, #text } do
      local server <close> = streaming(split(text, size))
      local said = { stdout = "", stderr = "" }
      for piece, which in assert(connect(server):container_logs("x", { stdout = true, stderr = true })) do
        said[which] = said[which] .. piece
      end
      assert.same({ stdout = "out" .. ("long "):rep(40), stderr = "err\n" }, said)
    end
  end)

  it("gives the engine's own error as what it is", function()
    local server <close> = streaming { frame(1, "fine"), frame(3, "error grabbing logs: bad file") }
    local items = read_all(assert(connect(server):container_logs("x", { stdout = true })))
    assert.same({ "error grabbing logs: bad file", "error", n = 2 }, items[2])
  end)

  it("is an error where it ends inside of a frame", function()
    for _, cut in ipairs { 3, 8, 10 } do
      local server <close> = streaming { frame(1, "fine"), frame(1, "not all"):sub(1, cut) }
      local items, err = read_all(assert(connect(server):container_logs("x", { stdout = true })))
      assert.same({ "fine", "stdout", n = 2 }, items[1])
      assert.same({ "protocol", "the stream ended inside of a frame" }, { err.kind, err.message })
    end
  end)

  it("is an error where it is no frames, which says what helps", function()
    local server <close> = streaming { frame(1, "fine"), "$ ls -l\r\n" }
    local items, err = read_all(assert(connect(server):container_logs("x", { stdout = true })))
    assert.equal(1, #items)
    assert.equal("protocol", err.kind)
    assert.matches("may have a TTY; pass tty = true", err.message)
  end)

  it("is raw where the caller says that there is a TTY, or an engine of API 1.42 or later does", function()
    for _, case in ipairs { { "1.41", RAW, true }, { "1.41", nil, true }, { "1.42", RAW, nil }, { "1.55", RAW, false } } do
      local newest, type, tty = table.unpack(case, 1, 3)
      local server <close> = streaming({ "$ l", "s\r\n" }, { newest = newest, type = type })
      local said = ""
      for piece, which in assert(connect(server):container_logs("x", { stdout = true, tty = tty })) do
        assert.equal("stdout", which)
        said = said .. piece
      end
      assert.equal("$ ls\r\n", said)
    end
  end)

  it("is of frames where the engine says so, whatever the caller says", function()
    local server <close> = streaming({ frame(2, "err") }, { newest = "1.42", type = "application/vnd.docker.multiplexed-stream" })
    assert.same({ { "err", "stderr", n = 2 } }, (read_all(assert(connect(server):container_logs("x", { tty = true })))))
  end)
end)

describe("a stream", function()
  it("of bytes gives what comes", function()
    local server <close> = streaming({ "a\0b", "c" }, { type = "application/x-tar" })
    local text = ""
    for piece in assert(connect(server):container_export "x") do text = text .. piece end
    assert.equal("a\0bc", text)
  end)

  it("tells the headers of its answer, and what it is", function()
    local server <close> = streaming({ "[1]\n" }, { type = "application/json" })
    local stream = assert(connect(server):events())
    assert.equal("application/json", stream:headers()["content-type"])
    assert.matches("^stream of JSON documents %(%a+%)$", tostring(stream))
    read_all(stream)
    assert.equal("stream of JSON documents (ended)", tostring(stream))
    stream:close()
    assert.equal("stream of JSON documents (closed)", tostring(stream))
    assert.matches("the stream is closed", select(2, pcall(stream.headers, stream)))
  end)

  it("ends at its end again and again, and after its close", function()
    local server <close> = streaming { "[1]\n" }
    local stream = assert(connect(server):events())
    read_all(stream)
    assert.same({ n = 1 }, table.pack(stream:read()))
    stream:close()
    stream:close()
    assert.same({ n = 1 }, table.pack(stream:read()))
  end)

  it("gives what came before its connection was lost, then the error", function()
    local server <close> = streaming({ "[1]\n", "[2]\n" }, { cut = true })
    local items, err = read_all(assert(connect(server):events()))
    assert.equal(2, #items)
    assert.equal("unreachable", err.kind)
    assert.matches("lost the connection to the Docker engine at unix://", err.message, 1, true)
  end)

  it("raises in a loop what read would give", function()
    local server <close> = streaming({ "[1]\n" }, { cut = true })
    local seen = 0
    local ok, err = pcall(function()
      for _ in assert(connect(server):events()) do seen = seen + 1 end
    end)
    assert.same({ false, "unreachable", 1 }, { ok, err.kind, seen })
  end)

  it("may be read again after a time-out, of 0 too, and loses nothing", function()
    local gate = dockrun.queue()
    local server <close> = open_ended(function(write)
      for text in function() return gate:pop() end do write(text) end
    end)
    finally(function() gate:close() end)
    local stream <close> = assert(connect(server):events())
    for _, seconds in ipairs { 0.02, 0 } do
      local item, err = stream:read(seconds)
      assert.same({ nil, "timeout" }, { item, err.kind })
    end
    gate:push '["ha'
    assert.equal("timeout", select(2, stream:read(0.02)).kind)
    gate:push 'lf"]\n'
    assert.equal("half", stream:read(10)[1])
    gate:push "[1]\n"
    local item
    repeat item = stream:read(0) until item -- lets the loop run
    assert.equal(1, item[1])
  end)

  it("is still there when a reader is cancelled", function()
    local gate = dockrun.queue()
    local server <close> = open_ended(function(write)
      gate:pop()
      write "[1]\n"
    end)
    local stream <close> = assert(connect(server):events())
    local reader = dockrun.spawn(stream.read, stream)
    dockrun.sleep(0)
    reader:cancel()
    assert.equal("cancelled", select(2, pcall(reader.await, reader)).kind)
    gate:push(true)
    assert.equal(1, stream:read(10)[1])
  end)

  it("has one reader at a time", function()
    local server <close> = open_ended(function() end)
    local stream <close> = assert(connect(server):events())
    local reader <close> = dockrun.spawn(stream.read, stream)
    dockrun.sleep(0)
    assert.equal("waiting", reader:status())
    assert.matches("another fiber waits for this already", select(2, pcall(stream.read, stream)))
  end)

  it("ends for who reads when it is closed by another", function()
    local server <close> = open_ended(function() end)
    local stream = assert(connect(server):events())
    local reader = dockrun.spawn(stream.read, stream)
    dockrun.sleep(0)
    stream:close()
    assert.same({ n = 1 }, table.pack(reader:await(120)))
  end)

  it("frees its connection with its scope, with its close, and when it is forgotten", function()
    local gone = dockrun.queue()
    local server <close> = servers.engine(function(connection)
      connection:write(CHUNKED:format(RAW))
      connection:await_end()
      gone:push(true)
      return false
    end)
    local engine = connect(server)
    do
      local stream <close> = assert(engine:events())
      assert.matches("open", tostring(stream))
    end
    assert.is_true(gone:pop(120))
    assert(engine:events()):close()
    assert.is_true(gone:pop(120))
    assert(engine:events())
    collectgarbage()
    collectgarbage()
    assert.is_true(gone:pop(120))
  end)

  it("of an answer is not for writing", function()
    local server <close> = open_ended(function() end)
    local stream <close> = assert(connect(server):events())
    assert.matches("this stream is for reading", select(2, pcall(stream.write, stream, "x")))
    stream:shutdown()
  end)

  it("waits for its head no longer than it may", function()
    local server <close> = servers.engine(function(connection)
      connection:await_end()
      return false
    end)
    local stream, err = connect(server):events { timeout = 0.05 }
    assert.is_nil(stream)
    assert.equal("timeout", err.kind)
  end)

  it("is refused with the engine's own words", function()
    local server <close> = servers.engine(function(connection)
      connection:answer('{"message":"No such container: x"}\n', "404 Not Found", "Content-Type: application/json\r\n")
    end)
    local stream, err = connect(server):container_logs("x", { stdout = true })
    assert.is_nil(stream)
    assert.same({ "engine", 404, "No such container: x", "container_logs" }, { err.kind, err.status, err.message, err.call })
  end)
end)

describe("back-pressure", function()
  -- What a peer takes while nobody reads it: buffers of ours, of libcurl's and the kernel's on both sides.
  local BOUND = 4 * 1024 * 1024
  local PIECE = ("x"):rep(64 * 1024)

  it("makes an engine wait for a slow reader, and then lets everything through", function()
    local stalled, total = dockrun.queue(), 0
    local server <close> = open_ended(function(write, connection)
      local told = false
      while total < 4 * BOUND do
        if write(frame(1, PIECE), not told and 0.3 or nil) == nil then -- it does not get rid of it
          told = true
          stalled:push(total)
        end
        total = total + #PIECE
      end
      if not told then stalled:push(total) end
      connection:write "0\r\n\r\n"
    end)
    local stream <close> = assert(connect(server):container_logs("x", { stdout = true }))
    local at = stalled:pop(120)
    assert.is_true(at < BOUND, at .. " bytes were taken off an engine that nobody read")
    local read = 0
    for piece in stream do read = read + #piece end
    assert.equal(total, read)
  end)

  -- An engine that takes nothing of an upload until it is told to; `taken` counts what it took then.
  local function reluctant(go, answer)
    local self = { taken = 0 }
    self.server = servers.engine(function(connection, request)
      assert(request.headers["transfer-encoding"] == "chunked", request.line)
      go:pop()
      local text = ""
      while not text:find "0\r\n\r\n$" do
        local more = connection:read()
        if not more then return false end
        self.taken = self.taken + #more
        text = (text .. more):sub(-5)
      end
      connection:answer(answer or "{}\n")
    end)
    return self
  end

  it("asks for no more of a body than a slow engine takes, and then sends all of it", function()
    local go, asked, size = dockrun.queue(), 0, 16 * 1024 * 1024
    local engine = reluctant(go)
    local server <close> = engine.server
    local news = dockrun.queue()
    local call <close> = dockrun.spawn(function()
      local stream <close> = assert(connect(server):image_load { body = function()
        if asked == size then return nil end
        asked = asked + #PIECE
        news:push(true)
        return PIECE
      end })
      return (stream:read())
    end)
    while news:pop(0.3) do end -- until it asks for nothing more
    assert.is_true(asked < BOUND, asked .. " bytes of a body were asked for that nobody took")
    go:push(true)
    assert.same({}, call:await(120))
    assert.equal(size, asked)
    assert.is_true(engine.taken > size)
  end)

  it("ends a stalled upload by its time-out, and by a cancel, and closes the connection", function()
    local go = dockrun.queue()
    local gone = dockrun.queue()
    local server <close> = servers.engine(function(connection)
      go:pop()
      connection:await_end()
      gone:push(true)
      return false
    end)
    local body = function() return PIECE end
    local stream, err = connect(server):image_load { body = body, timeout = 0.1 }
    assert.is_nil(stream)
    assert.equal("timeout", err.kind)
    go:push(true)
    assert.is_true(gone:pop(120))
    local call = dockrun.spawn(connect(server).image_load, connect(server), { body = body })
    assert.is_nil((call:await(0.1)))
    call:cancel "never mind"
    assert.equal("never mind", select(2, pcall(call.await, call)).message)
    go:push(true)
    assert.is_true(gone:pop(120))
  end)
end)

describe("a body that a function gives", function()
  local function receiving()
    local self = { bodies = dockrun.queue() }
    self.server = servers.engine(function(connection)
      local text, done = "", false
      while not done do
        local line = ""
        while not line:find "\n$" do line = line .. (connection:read(1) or error "the body ended too soon") end
        local size = tonumber(line:match "^%x+", 16)
        text = text .. (size > 0 and connection:read(size) or "")
        connection:read(2)
        done = size == 0
      end
      self.bodies:push(text)
      connection:answer "{}\n"
    end)
    return self
  end

  for what, pieces in pairs {
    ["nothing"] = {}, ["small pieces"] = { "a", "b\0", "c" }, ["empty pieces among others"] = { "", "a", "", "", "b", "" },
    ["one piece larger than any buffer"] = { ("y"):rep(3 * 1024 * 1024) },
  } do
    it("is sent as it comes: " .. what, function()
      local engine = receiving()
      local server <close> = engine.server
      local i = 0
      local stream <close> = assert(connect(server):image_load { body = function()
        i = i + 1
        return pieces[i]
      end })
      assert.same({}, (stream:read()))
      assert.is_true(table.concat(pieces) == engine.bodies:pop(120))
    end)
  end

  it("may be of very many pieces", function()
    local engine = receiving()
    local server <close> = engine.server
    local left = 200000
    local stream <close> = assert(connect(server):image_load { body = function()
      left = left - 1
      return left >= 0 and (left % 2 == 0 and "z" or "") or nil
    end })
    assert.equal(100000, #engine.bodies:pop(120))
    assert.same({}, (stream:read()))
  end)

  it("may wait for its pieces, in a generator too", function()
    local engine = receiving()
    local server <close> = engine.server
    local stream <close> = assert(connect(server):image_load { body = coroutine.wrap(function()
      for i = 1, 3 do
        dockrun.sleep(0.005)
        coroutine.yield("piece " .. i .. "\n")
      end
    end) })
    assert.same({}, (stream:read()))
    assert.equal("piece 1\npiece 2\npiece 3\n", engine.bodies:pop(120))
  end)

  for what, case in pairs {
    ["raises"] = { function() error({ "mine" }) end, "mine" },
    ["gives what is no string"] = { function() return {} end, "a body function returns strings, then nil" },
    ["gives a number"] = { function() return 5 end, "a body function returns strings, then nil" },
  } do
    it("ends the call where it " .. what .. ", and the connection with it", function()
      local gone = dockrun.queue()
      local server <close> = servers.engine(function(connection)
        connection:await_end()
        gone:push(true)
        return false
      end)
      local first = true
      local ok, err = pcall(function()
        return connect(server):image_load { body = function()
          if first then
            first = false
            return "a piece"
          end
          dockrun.sleep(0.02) -- so that the first piece is on its way
          return case[1]()
        end }
      end)
      assert.is_false(ok)
      assert.matches(case[2], type(err) == "table" and err[1] or err, 1, true)
      assert.is_true(gone:pop(120))
    end)
  end

  -- An engine that takes what comes, and never answers.
  local function taking()
    return servers.engine(function(connection)
      connection:await_end()
      return false
    end)
  end

  for what, body in pairs {
    ["waits"] = function() dockrun.sleep(60) end,
    ["waits again after it was broken off"] = function()
      pcall(dockrun.sleep, 60)
      dockrun.sleep(0.01)
      return "x"
    end,
    ["gives nothing for ever"] = function() return "" end,
    ["gives little for ever"] = function() return "x" end,
  } do
    it("that " .. what .. " is broken off by the call's time-out, and by a cancel; others go on meanwhile", function()
      local server <close> = taking()
      local engine = connect(server)
      local call = dockrun.spawn(engine.image_load, engine, { body = body, timeout = 0.3 })
      dockrun.sleep(0.01)
      assert.equal("waiting", call:status())
      local stream, err = call:await(20)
      assert.same({ nil, "timeout", "no answer in time from the Docker engine at " .. server.endpoint }, { stream, err.kind, err.message })
      call = dockrun.spawn(engine.image_load, engine, { body = body })
      dockrun.sleep(0.05)
      call:cancel "never mind"
      assert.equal("never mind", select(2, pcall(call.await, call, 20)).message)
    end)
  end

  it("that waits is broken off by a refusal", function()
    local server <close> = servers.engine(function(connection)
      connection:answer('{"message":"no space left"}', "507 Insufficient Storage", "Connection: close\r\n")
      return false
    end)
    local closed = false
    local stream, err = connect(server):image_load { timeout = 20, body = function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      dockrun.sleep(60)
    end }
    assert.same({ nil, "engine", 507, "no space left" }, { stream, err.kind, err.status, err.message })
    assert.is_true(closed)
  end)

  it("is cut short by a refusal, whose words count", function()
    local server <close> = servers.engine(function(connection)
      connection:answer('{"message":"no space left"}', "507 Insufficient Storage", "Connection: close\r\n")
      return false
    end)
    for _ = 1, 20 do
      local stream, err = connect(server):image_load { body = function() return ("x"):rep(65536) end }
      assert.is_nil(stream)
      assert.same({ "engine", 507, "no space left" }, { err.kind, err.status, err.message })
    end
  end)
end)
