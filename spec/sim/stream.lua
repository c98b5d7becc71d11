-- A stream of documents from the simulated engine, as in core/http/stream.c.
local runtime = require "dockrun.core.runtime"

local M = {}

local Stream = {}
Stream.__index = Stream

---@param sched Scheduler
---@param disconnect fun()
---@return table stream
function M.new(sched, disconnect)
  return setmetatable({ sched = sched, disconnect = disconnect, items = {}, on_close = function() end }, Stream)
end

local function wake(self)
  if self.wait then self.sched:wake(self.wait, "woken") end
end

--- Adds an item.
---@param ... any
function Stream:offer(...)
  if self.broken or self.closed or self.ended then return end
  self.items[#self.items + 1] = { ... }
  wake(self)
end

--- Ends the stream, after a last item.
---@param item? table
function Stream:finish(item)
  if item then self:offer(item) end
  self.ended = true
  wake(self)
end

--- Breaks the connection. Items that had arrived can still be read.
function Stream:break_off()
  if self.ended or self.broken then return end
  self.broken = true
  self.on_close()
  wake(self)
end

function Stream:read(timeout)
  local sched = self.sched
  local deadline = timeout and sched.time + timeout
  while #self.items == 0 do
    if self.closed or self.ended then return nil end
    if self.broken then return nil, runtime.error("unreachable", "the stream broke off") end
    if deadline and sched.time >= deadline then return nil, runtime.error("timeout", "nothing came through the stream in time") end
    sched:wait(deadline and deadline - sched.time, function(wait) self.wait = wait end)
    self.wait = nil
  end
  return table.unpack(table.remove(self.items, 1))
end

-- for item in stream do … end: raises instead of ending quietly.
function Stream:__call()
  local item, other = self:read()
  if item == nil and other then error(other, 0) end
  return item, other
end

function Stream:close()
  if self.closed then return end
  self.closed = true
  self.disconnect()
  self.on_close()
  wake(self)
end
Stream.__close = Stream.close

return M
