-- dockrun.core.ports over the simulated kernel: as core/host/ports.c, with holds against other processes.
local real = require "dockrun.core.ports"
local runtime = require "dockrun.core.runtime"

local M = {}

local Allocator = {}
Allocator.__index = Allocator

local function taken(ip, port, holder)
  return nil, runtime.error("taken", ("port %d on %s is held by %s"):format(port, ip, holder), { ip = ip, port = port, holder = holder })
end

-- Takes a port; nil and the holder if it is in use.
local function take(self, port, owner, probe)
  local claim = self.world.port_claims[port]
  if claim and claim ~= self.process then return nil, tostring(claim) end
  local holder = probe and self.world.engine:holder(port)
  if holder then return nil, holder == "foreign" and "another program" or "docker-proxy" end
  self.world.port_claims[port] = self.process
  self.owners[port] = owner
  return true
end

function Allocator:allocate(ip, owner)
  local span = self.to - self.from + 1
  local start = self.world.random(span) - 1
  for i = 0, span - 1 do
    local port = self.from + (start + i) % span
    if not self.owners[port] and take(self, port, owner, true) then return port end
  end
  return nil, runtime.error("exhausted", ("no free port in %d-%d on %s"):format(self.from, self.to, ip))
end

local function reserve(self, ip, port, owner, probe)
  if self.owners[port] then return taken(ip, port, self.owners[port]) end
  local ok, holder = take(self, port, owner, probe)
  if not ok then return taken(ip, port, holder) end
  return true
end

function Allocator:reserve(ip, port, owner) return reserve(self, ip, port, owner, true) end
function Allocator:adopt(ip, port, owner) return reserve(self, ip, port, owner, false) end

function Allocator:release(_, port)
  if not self.owners[port] then return false end
  self.owners[port] = nil
  self.world.port_claims[port] = nil
  return true
end

---@param world World
---@param process SimProcess
---@return table ports  the module
function M.new(world, process)
  return {
    address = real.address,
    new = function(options)
      return setmetatable({ world = world, process = process, from = options.from, to = options.to, owners = {} }, Allocator)
    end,
  }
end

return M
