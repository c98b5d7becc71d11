-- One port for tcp and udp: allocated and released.
local compare = require("spec.bench.compare").compare
local dockrun = require "dockrun"
local uv = require "luv"

local ADDRESS, TIMES, RANGE = "127.0.0.1", 200, 1000

-- Binds a socket of each kind, on a port (0: the kernel's choice); true if both succeeded.
local function bind(port)
  local tcp, udp = uv.new_tcp(), uv.new_udp()
  local ok = tcp:bind(ADDRESS, port)
  ok = ok and udp:bind(ADDRESS, tcp:getsockname().port)
  tcp:close()
  udp:close()
  return ok
end

return function()
  local contestants = {
    { "floor", "the kernel's answer alone, for a port each", function()
      for port = 40001, 40000 + TIMES do dockrun.ports.probe(ADDRESS, port) end
      return TIMES
    end },
    { "peer", "binding to port 0: the kernel's choice", function()
      for _ = 1, TIMES do
        while not bind(0) do end
      end
      return TIMES
    end },
  }
  for i, fill in ipairs { 0, 50, 90, 99 } do
    local from = 20000 + i * RANGE  -- separate ranges, because two allocators cannot hold the same port
    local allocator = dockrun.ports.new { from = from, to = from + RANGE - 1, seed = 1 }
    for _ = 1, fill * RANGE // 100 do assert(allocator:allocate(ADDRESS, "bench")) end
    table.insert(contestants, i + 1, { "dockrun", ("allocate, release; %d %% of the range is held"):format(fill), function()
      for _ = 1, TIMES do allocator:release(ADDRESS, assert(allocator:allocate(ADDRESS, "bench"))) end
      return TIMES
    end })
  end
  return { compare("One host port, tcp and udp", "µs", 9, contestants) }
end
