--- Leases: which task has which host port, among all dockrun processes that share the state. Other programs' ports are not
--- here: core/host/ports.c asks the kernel, and holds each port of this process by a bound socket.
local owners = require "dockrun.store.owner"
local mapper = require "dockrun.store.mapper"
local ports = require "dockrun.core.ports"
local runtime = require "dockrun.core.runtime"
local time = require "dockrun.util.time"

---@class Store
local M = {}

---@class Lease
---@field ip string      "0.0.0.0" for every address of both families
---@field port integer
---@field alloc string
---@field task string
---@field label? string
---@field owner Owner    the process that manages the task
---@field leased_at string
---@field job? string    the last three only if the allocation is known
---@field group? string
---@field index? integer

local ANY = "0.0.0.0"

-- The words of core/host/ports.c, with the names that the state knows.
local function taken(wanted, ip, lease)
  local name = lease.job and ("%s.%s[%d].%s"):format(lease.job, lease.group, lease.index, lease.task)
    or ("task %s of allocation %s"):format(lease.task, lease.alloc)
  local ended = owners.is_alive(lease.owner) and "" or ", which has ended"
  local holder = ("%s (dockrun process %d%s)"):format(name, lease.owner.pid, ended)
  return runtime.error("taken", ("port %d on %s is held by %s; choose another port, or stop its holder"):format(wanted.port, ip, holder), {
    ip = lease.ip, port = lease.port, holder = holder, pid = lease.owner.pid, alloc = lease.alloc, job = lease.job, task = lease.task,
  })
end

local LEASES = [[
  SELECT leases.*, job, "group", "index" FROM leases LEFT JOIN allocations ON allocations.id = alloc ]]

--- Takes a port on an address, or on all if ip is 0.0.0.0 or ::, which overlaps with every address. A task may lease its own
--- port again; this process is then the owner.
---@param wanted { ip: string, port: integer, alloc: string, task: string, label?: string }
---@return true? ok
---@return table? err  kind "taken" with ip, port, holder, pid, alloc, task and, if known, job; "invalid"; the database's
function M:lease(wanted)
  local ip, invalid = ports.address(wanted.ip)
  if not ip then return nil, invalid end
  return self.db:transaction(function()
    local held, err = mapper.list(self.db, LEASES .. "WHERE port = ?1 AND (ip = ?2 OR ip = ?3 OR ?2 = ?3)", wanted.port, ip, ANY)
    if not held then return nil, err end
    for _, lease in ipairs(held) do
      local own = lease.ip == ip and lease.alloc == wanted.alloc and lease.task == wanted.task
      if not own then return nil, taken(wanted, ip, lease) end
    end
    local changes
    changes, err = self.db:run(
      "REPLACE INTO leases (port, ip, alloc, task, label, owner, leased_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
      wanted.port, ip, wanted.alloc, wanted.task, wanted.label, owners.format(self.owner), time.format())
    return changes and true, err
  end)
end

--- Gives ports back: one, or all of an allocation or of one of its tasks.
---@param which { ip?: string, port?: integer, alloc?: string, task?: string }  `ip` and `port`, `alloc`, or all
---@return integer? released  how many
---@return table? err
function M:release(which)
  assert(which.ip and which.port or which.alloc, "a release names ip and port, or alloc")
  local ip, invalid
  if which.ip then
    ip, invalid = ports.address(which.ip)
    if not ip then return nil, invalid end
  end
  return self.db:run([[DELETE FROM leases WHERE (?1 IS NULL OR ip = ?1) AND (?2 IS NULL OR port = ?2)
    AND (?3 IS NULL OR alloc = ?3) AND (?4 IS NULL OR task = ?4)]], ip, which.port, which.alloc, which.task)
end

---@return Lease[]? leases  by port and address
---@return table? err
function M:leases() return mapper.list(self.db, LEASES .. "ORDER BY port, ip") end

--- The leases whose process has ended. Their containers may still run.
---@param is_alive? fun(owner: Owner): boolean  owners.is_alive if left out
---@return Lease[]? leases
---@return table? err
function M:dead_leases(is_alive)
  local leases, err = self:leases()
  if not leases then return nil, err end
  local dead = {}
  for _, lease in ipairs(leases) do
    if not (is_alive or owners.is_alive)(lease.owner) then dead[#dead + 1] = lease end
  end
  return dead
end

--- Removes the leases of processes that have ended, except those that a container still uses.
---@param held fun(lease: Lease): boolean  whether a container uses the port; may wait
---@param is_alive? fun(owner: Owner): boolean
---@return Lease[]? released
---@return table? err
function M:reclaim_leases(held, is_alive)
  local dead, err = self:dead_leases(is_alive)
  if not dead then return nil, err end
  local released = {}
  for _, lease in ipairs(dead) do
    if not held(lease) then
      -- The owner is compared: another process may have taken the lease over meanwhile.
      local gone
      gone, err = mapper.affect(self.db, "DELETE FROM leases WHERE port = ? AND ip = ? AND alloc = ? AND task = ? AND owner = ?",
        lease.port, lease.ip, lease.alloc, lease.task, owners.format(lease.owner))
      if err then return nil, err end
      if gone then released[#released + 1] = lease end
    end
  end
  return released
end

return M
