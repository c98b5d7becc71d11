-- A server whose every byte a spec writes itself: for peers that misbehave, stall or die when the spec wants it.
--
--   local server <close> = servers.start(function(connection)
--     local request = connection:request()
--     connection:write "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
--   end)
--   dockrun.http.request { url = server.url, unix_socket = server.path }
--
-- A fiber of its own serves each connection. When the function returns, the connection is closed; when it raises an error,
-- the spec's next call of `server:check()`, or its close, raises that error.
local dockrun = require "dockrun"
local uv = require "luv"

local M = {}

-- ---- connections ---------------------------------------------------------------------------------

---@class SpecConnection
---@field number integer  of this server's connections: 1, 2, …
local Connection = {}
Connection.__index = Connection

-- Reads only while a read waits, so that an idle connection applies back-pressure.
local function read_some(self)
  if self.ended then return nil end
  self.socket:read_start(function(_, data)
    if not self.socket:is_closing() then self.socket:read_stop() end
    self.ended = not data
    self.news:push(data or false)
  end)
  return self.news:pop() or nil
end

--- Reads at least one byte, or all of `count`; nil at the end of the client's data.
---@param count? integer
---@return string?
function Connection:read(count)
  while self.text == "" or #self.text < (count or 1) do
    local more = read_some(self)
    if not more then return nil end
    self.text = self.text .. more
  end
  local taken = self.text:sub(1, count or -1)
  self.text = self.text:sub(#taken + 1)
  return taken
end

--- Reads the next request: its first line, headers (lower-case names), and body if it has a length.
---@return { line: string, headers: table<string, string>, body: string }?
function Connection:request()
  local from, to
  repeat
    from, to = self.text:find("\r\n\r\n", 1, true)
    local more = not from and read_some(self)
    if more then self.text = self.text .. more end
  until from or not more
  if not from then return nil end
  local head = self.text:sub(1, from + 1)
  self.text = self.text:sub(to + 1)
  local request = { line = head:match "^[^\r]*", headers = {} }
  for name, value in head:gmatch "\n([^:\r\n]+): *([^\r]*)" do request.headers[name:lower()] = value end
  local length = tonumber(request.headers["content-length"] or 0)
  request.body = length > 0 and self:read(length) or ""
  return request
end

--- Writes the whole text; false if the client has disconnected, nil if it does not read the text in time.
---@param text string
---@param timeout? number  seconds
---@return boolean?
function Connection:write(text, timeout)
  if self.socket:is_closing() then return false end
  local done = dockrun.queue()
  self.socket:write(text, function(why) done:push(not why) end)
  return (done:pop(timeout))
end

--- Writes a complete response.
---@param body? string
---@param status? string   "200 OK"
---@param headers? string  further lines, each with its "\r\n"
function Connection:answer(body, status, headers)
  body = body or ""
  return self:write(("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s"):format(status or "200 OK", #body, headers or "", body))
end

--- Closes the sending half of the connection; the client may continue to send.
function Connection:shutdown()
  local done = dockrun.queue()
  self.socket:shutdown(function() done:push(true) end)
  done:pop()
end

--- Waits until the client has closed its side; the rest of its data is dropped.
function Connection:await_end()
  while self:read() do end
end

function Connection:close()
  if self.socket:is_closing() then return end
  self.socket:close()
  self.ended = true
  self.news:push(false)
end

--- Closes like a server that crashed: the client gets a reset, over TCP at once.
function Connection:reset()
  if self.socket.close_reset and not self.socket:is_closing() then self.socket:close_reset() end
  self:close()
end

-- ---- the server ----------------------------------------------------------------------------------

---@class SpecServer
---@field url string         for http.request; with `path` if it listens on a unix socket
---@field endpoint string    for docker.connect
---@field path? string
---@field connections SpecConnection[]  in the order they came
local Server = {}
Server.__index = Server

local function serve(self, listening, handle)
  local socket = self.path and uv.new_pipe() or uv.new_tcp()
  listening:accept(socket)
  local connection = setmetatable({
    socket = socket, text = "", news = dockrun.queue(), number = #self.connections + 1,
  }, Connection)
  self.connections[connection.number] = connection
  self.arrived:push(connection)
  local ok, why = pcall(handle, connection)
  connection:close()
  if not ok and not self.closed then self.failure = self.failure or why end
end

--- Listens on a unix socket of its own, or on loopback with `tcp`.
---@param handle fun(connection: SpecConnection)
---@param opts? { tcp?: boolean }
---@return SpecServer
function M.start(handle, opts)
  local self = setmetatable({ connections = {}, arrived = dockrun.queue() }, Server)
  if opts and opts.tcp then
    self.listening = uv.new_tcp()
    assert(self.listening:bind("127.0.0.1", 0))
    local address = ("127.0.0.1:%d"):format(self.listening:getsockname().port)
    self.url, self.endpoint = "http://" .. address, "tcp://" .. address
  else
    self.path = os.tmpname()
    os.remove(self.path)
    self.listening = uv.new_pipe()
    assert(self.listening:bind(self.path))
    self.url, self.endpoint = "http://localhost", "unix://" .. self.path
  end
  assert(self.listening:listen(128, function() serve(self, self.listening, handle) end))
  return self
end

--- An engine that only negotiates the version of the API, and passes every other request to the function. After that the
--- connection serves the next request.
---@param handle fun(connection: SpecConnection, request: table): boolean?  false: close the connection
---@param opts? { tcp?: boolean, newest?: string, oldest?: string }
---@return SpecServer
function M.engine(handle, opts)
  opts = opts or {}
  local version = dockrun.json.encode { ApiVersion = opts.newest or "1.41", MinAPIVersion = opts.oldest or "1.12" }
  return M.start(function(connection)
    for request in function() return connection:request() end do
      if request.line == "GET /version HTTP/1.1" then
        connection:answer(version)
      elseif handle(connection, request) == false then
        return
      end
    end
  end, opts)
end

--- Raises the error of a connection's function, if there was one.
function Server:check()
  local failure = self.failure
  self.failure = nil
  if failure then error(failure, 0) end
end

--- Closes every connection and stops listening. May be called twice.
function Server:close()
  if self.closed then return end
  self.closed = true
  self.listening:close()
  for _, connection in ipairs(self.connections) do connection:close() end
  dockrun.sleep(0)
  self:check()
end

function Server:__close(err)
  if err then self.failure = nil end -- the error of the connection matters more
  self:close()
end

return M
