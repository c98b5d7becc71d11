-- A proxy between dockrun and a Docker engine, unix socket to unix socket, that injects a fault at one byte of one request
-- or answer:
--
--   local p <close> = proxy.start "unix:///run/docker.sock"
--   local fault = { request = 7, direction = "down", byte = 20, action = "reset" }
--   local requests = p:arm { fault }
--   … dockrun --endpoint <p.endpoint> …
--   p:arm {}
--   requests[7].path, fault.fired
--
-- or stops completely (freeze), drops every connection (drop), or goes away and comes back as another socket (away, back).
local dockrun = require "dockrun"
local uv = require "luv"

local M = {}

---@class Fault
---@field request? integer    number of the request over all connections, from 1, since the faults were armed
---@field match? string       or the first whose "METHOD /path" has this pattern
---@field direction "up"|"down"  in the request, or in its answer
---@field byte integer        number of bytes that pass before the fault; from 0
---@field action "reset"|"truncate"|"delay"|"split"|"repeat"|"replay"|"drop"|"double"
---@field always? boolean     apply it to every later piece too
---@field seconds? number     of a delay: 0.3
---@field count? number       bytes that are split off one at a time (64), sent again (16), or left out (16)
---@field fired? boolean      the fault has happened

---@class ProxyRequest
---@field n integer
---@field method string
---@field path string     with the query
---@field up integer      bytes of the request so far
---@field down integer    of its answer
---@field text string     the request

---@class Proxy
---@field endpoint string
---@field faults Fault[]
---@field requests ProxyRequest[]
---@field on? fun(point: "arrived"|"forwarded"|"answered", request: ProxyRequest): false?  may wait; "answered": the first
---  bytes of the answer are here and not yet passed on. false: nothing more of the connection is passed on
local Proxy = {}
Proxy.__index = Proxy

-- ---- pipes ------------------------------------------------------------------------------------

local function close(pipe)
  if not pipe:is_closing() then pipe:close() end
end

local function write(pipe, data)
  if #data == 0 or pipe:is_closing() then return end
  local done = dockrun.queue()
  if pipe:write(data, function() done:push(true) end) then done:pop() end
end

local function connect(path)
  local pipe, done = uv.new_pipe(), dockrun.queue()
  pipe:connect(path, function(why) done:push(why or true) end)
  if done:pop() == true then return pipe end
  close(pipe)
end

-- ---- faults -----------------------------------------------------------------------------------

local function reset(connection)
  close(connection.client)
  if connection.engine then close(connection.engine) end
  connection.ended = true
end

-- Sends the whole request to the engine once more, on a connection of its own, and throws the answer away.
local function replay(self, request)
  local engine = connect(self.to)
  if not engine then return end
  local answered = dockrun.queue()
  engine:read_start(function(_, data) answered:push(data or false) end)
  write(engine, request.text)
  answered:pop(2)
  close(engine)
end

-- Each gets the rest of the piece after the fault's byte, and returns the bytes that pass instead.
local actions = {
  reset = function(_, connection)
    reset(connection)
    return ""
  end,
  -- Closes the connection without a reset, in the middle.
  truncate = function(_, connection, fault, to)
    connection.cut = connection.cut or {}
    connection.cut[fault.direction] = true
    if not to:is_closing() then to:shutdown() end
    return ""
  end,
  delay = function(_, _, fault, _, rest)
    dockrun.sleep(fault.seconds or 0.3)
    return rest
  end,
  split = function(_, _, fault, to, rest)
    local count = math.min(fault.count or 64, #rest)
    for i = 1, count do
      write(to, rest:sub(i, i))
      dockrun.sleep(0.001)
    end
    return rest:sub(count + 1)
  end,
  ["repeat"] = function(_, _, fault, _, rest, before) return before:sub(-(fault.count or 16)) .. rest end,
  double = function(_, _, _, _, rest) return rest .. rest end,
  drop = function(_, _, fault, _, rest) return rest:sub(math.min(fault.count or 16, #rest) + 1) end,
  replay = function(self, _, _, _, rest, _, request)
    replay(self, request)
    return rest
  end,
}

local function concerns(fault, request, direction)
  if fault.fired and not fault.always or fault.direction ~= direction then return false end
  if fault.request then return fault.request == request.n end
  return (request.method .. " " .. request.path):find(fault.match) ~= nil
end

-- The next fault within `length` bytes from here, except those that this piece already had.
local function next_fault(self, request, direction, length, suffered)
  local first
  for _, fault in ipairs(self.faults) do
    local at = fault.always and math.max(fault.byte, request[direction]) or fault.byte
    if not suffered[fault] and concerns(fault, request, direction) and at >= request[direction] and at < request[direction] + length
      and (not first or fault.byte < first.byte) then
      first = fault
    end
  end
  return first
end

local function pass(self, connection, direction, to, data)
  local request, before, suffered = connection.request, "", {}
  while #data > 0 and not connection.ended and not (connection.cut and connection.cut[direction]) do
    local fault = request and next_fault(self, request, direction, #data, suffered)
    local piece = fault and data:sub(1, math.max(fault.byte - request[direction], 0)) or data
    write(to, piece)
    before, data = before .. piece, data:sub(#piece + 1)
    if request then request[direction] = request[direction] + #piece end
    if fault then
      fault.fired, suffered[fault] = true, true
      data = actions[fault.action](self, connection, fault, to, data, before, request)
    end
  end
end

-- ---- the way through --------------------------------------------------------------------------

local function notify(self, connection, point)
  if self.on and self.on(point, connection.request) == false then reset(connection) end
end

-- A request begins with the first bytes on a connection, and with those that follow an answer: dockrun does not pipeline.
local function begin(self, connection, data)
  local method, path = data:match "^(%u+) (%S+) HTTP/1"
  if not method or connection.request and connection.request.down == 0 then return false end
  connection.request = { n = #self.requests + 1, method = method, path = path, up = 0, down = 0, text = "" }
  self.requests[#self.requests + 1] = connection.request
  notify(self, connection, "arrived")
  return true
end

local function pump(self, connection, direction, from, to)
  local pieces = dockrun.queue()
  from:read_start(function(_, data) pieces:push(data or false) end)
  while true do
    local data = pieces:pop()
    if self.frozen then self.frozen:pop() end
    if not data or connection.ended then break end
    local fresh = direction == "up" and begin(self, connection, data)
    local request = connection.request
    if request and direction == "up" then request.text = request.text .. data end
    if request and direction == "down" and request.down == 0 then notify(self, connection, "answered") end
    pass(self, connection, direction, to, data)
    if fresh then notify(self, connection, "forwarded") end
  end
  if not to:is_closing() then to:shutdown(function() end) end
  connection.done[direction] = true
  if connection.done.up and connection.done.down then reset(connection) end
end

local function serve(self, client)
  if self.frozen then self.frozen:pop() end
  local engine = connect(self.to)
  local connection = { client = client, engine = engine, done = {} }
  if not engine or self.is_away then
    reset(connection)
    return
  end
  self.connections[connection] = true
  local down = dockrun.spawn(pump, self, connection, "down", engine, client)
  pump(self, connection, "up", client, engine)
  down:await()
  self.connections[connection] = nil
end

-- ---- life -------------------------------------------------------------------------------------

local function listen(self)
  local server = uv.new_pipe()
  assert(server:bind(self.path))
  assert(server:listen(64, function()
    local client = uv.new_pipe()
    server:accept(client)
    dockrun.spawn(function()
      local ok, err = pcall(serve, self, client)
      if not ok and not self.closed then self.failure = self.failure or err end
    end)
  end))
  self.server = server
end

---@param to string  unix://…, the engine
---@return Proxy
function M.start(to)
  local path = os.tmpname()
  os.remove(path)
  local self = setmetatable({
    to = to:match "^unix://(.*)$", path = path, endpoint = "unix://" .. path, faults = {}, requests = {},
    connections = setmetatable({}, { __mode = "k" }),
  }, Proxy)
  listen(self)
  return self
end

--- Replaces the armed faults.
---@param faults Fault[]
---@return ProxyRequest[] requests  from now on, until it is armed again
function Proxy:arm(faults)
  self.faults, self.requests = faults, {}
  return self.requests
end

--- Stops both directions until thaw().
function Proxy:freeze() self.frozen = self.frozen or dockrun.queue() end

function Proxy:thaw()
  if self.frozen then self.frozen:close() end
  self.frozen = nil
end

--- Ends every connection.
function Proxy:drop()
  for connection in pairs(self.connections) do reset(connection) end
end

--- Removes the socket and ends every connection.
function Proxy:away()
  self.is_away = true
  close(self.server)
  os.remove(self.path)
  self:drop()
end

--- Makes another socket at the same path.
function Proxy:back()
  self.is_away = false
  listen(self)
end

--- Stops the proxy. May be called twice. Raises an error of the proxy itself.
function Proxy:close()
  if self.closed then return end
  self.closed = true
  self:thaw()
  close(self.server)
  os.remove(self.path)
  self:drop()
  if self.failure then error(self.failure, 0) end
end

Proxy.__close = Proxy.close

return M
