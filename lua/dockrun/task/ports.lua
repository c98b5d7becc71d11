-- A task's ports: from what the job asks for to what is bound.
local json = require "dockrun.core.json"

local M = {}

---@class PortMapping
---@field label string
---@field ip string              the node's address
---@field host_port integer
---@field container_port integer  the same as the host's, where the label is not a number
---@field protocols string[]      always tcp and udp

--- Gives every port back. Idempotent.
---@param allocator table  dockrun.core.ports
---@param bind_ip string
---@param mappings PortMapping[]
function M.release(allocator, bind_ip, mappings)
  for _, mapping in ipairs(mappings) do allocator:release(bind_ip, mapping.host_port) end
end

--- Takes a host port for everything that a task asks for, or for nothing.
---@param allocator table
---@param bind_ip string   address that the ports will be bound on
---@param ip string        the node's address, as tasks see it
---@param asked { label: string, static?: integer, to?: integer }[]
---@param owner string     named when somebody else wants one of them
---@return PortMapping[]? mappings
---@return table? err  kind "taken" or "exhausted"
function M.allocate(allocator, bind_ip, ip, asked, owner)
  local mappings = json.array {}
  for _, want in ipairs(asked) do
    local port, ok, err = want.static
    if port then
      ok, err = allocator:reserve(bind_ip, port, owner)
    else
      port, err = allocator:allocate(bind_ip, owner)
      ok = port
    end
    if not ok then
      M.release(allocator, bind_ip, mappings)
      err.label = want.label
      return nil, err
    end
    mappings[#mappings + 1] = {
      label = want.label, ip = ip, host_port = port, container_port = want.to or port,
      protocols = json.array { "tcp", "udp" },
    }
  end
  return mappings
end

return M
