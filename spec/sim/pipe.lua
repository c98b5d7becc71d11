-- Unix sockets of the simulated host, as far as luv's pipes are used. A listening socket is a file, which stays when its
-- process is killed. A callback runs as a fiber of its process, as in the real runtime.
local uv = require "luv"

local M = {}

local Pipe = {}
Pipe.__index = Pipe

---@param world World
---@param process SimProcess
---@return table pipe
function M.new(world, process)
  local self = setmetatable({ world = world, process = process, waiting = {} }, Pipe)
  table.insert(process.pipes, self)
  return self
end

-- The events of a pipe happen in order.
local function later(self, callback, ...)
  local values, sched = table.pack(...), self.world.sched
  self.last = math.max(sched.time + self.world.faults:latency(), (self.last or 0) + 1e-6)
  sched:at(self.last, function()
    if not self.closed then sched:spawn(self.process, callback, table.unpack(values, 1, values.n)) end
  end, self.process)
end

function Pipe:bind(path)
  local fd, why, code = uv.fs_open(path, "wx", 384)
  if not fd then
    if code == "EEXIST" then return nil, "EADDRINUSE: address already in use", "EADDRINUSE" end
    return nil, why, code
  end
  uv.fs_close(fd)
  self.path = path
  return 0
end

function Pipe:listen(_, callback)
  self.callback = callback
  self.world.sockets[self.path] = self
  return 0
end

function Pipe:connect(path, callback)
  local server = self.world.sockets[path]
  if not server or server.closed then
    later(self, callback, "ECONNREFUSED: connection refused")
    return true
  end
  local other = { world = self.world, process = server.process, peer = self, early = {} }
  self.peer, self.early = other, {}
  table.insert(server.waiting, other)
  later(self, callback, nil)
  later(server, server.callback, nil)
  return true
end

function Pipe:accept(client)
  local made = table.remove(self.waiting, 1)
  client.peer, client.early = made.peer, made.early
  made.accepted = client
  made.peer.peer = client
  return 0
end

-- The other side sends data, or nil at the end.
local function receive(self, data)
  if self.accepted then return receive(self.accepted, data) end
  if self.reader then later(self, self.reader, nil, data) else table.insert(self.early, data or false) end
end

function Pipe:read_start(callback)
  self.reader = callback
  for _, data in ipairs(self.early) do later(self, callback, nil, data or nil) end
  self.early = {}
  return 0
end

function Pipe:read_stop() self.reader = nil end

function Pipe:write(data, callback)
  if self.peer and not self.peer.closed then receive(self.peer, data) end
  if callback then later(self, callback, nil) end
  return true
end

--- Does the kernel's part after its process has ended: the other side sees the end, the file stays.
function Pipe:vanish()
  if self.closed then return end
  self.closed = true
  if self.world.sockets[self.path or ""] == self then self.world.sockets[self.path] = nil end
  for _, one in ipairs(self.waiting) do one.peer:end_of_input() end
  if self.peer and not self.peer.closed then receive(self.peer, nil) end
end

function Pipe:end_of_input() receive(self, nil) end

function Pipe:close(callback)
  if self.closed then return end
  self:vanish()
  if self.path then uv.fs_unlink(self.path) end
  if callback then self.world.sched:spawn(self.process, callback) end
end

function Pipe:is_closing() return self.closed or false end
function Pipe.unref() end

return M
