--- Linux capabilities of a container: the engine's default set, the task's cap_add and cap_drop, and the agent's allow_caps.
local tables = require "dockrun.util.tables"

local M = {}

--- The engine's default set: DefaultCapabilities of moby/oci/caps.
M.default = {
  "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
  "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

-- "cap_net_admin" -> "NET_ADMIN"
local function upper(name) return (name:upper():gsub("^CAP_", "")) end

local function set(names)
  local members = {}
  for _, name in ipairs(names or {}) do members[upper(name)] = true end
  return members
end

--- The names of cap_add that are not allowed.
---@param add? string[]     in any case, with or without CAP_
---@param allowed string[]  may hold "all"
---@return string[] names
function M.refused(add, allowed)
  local allow, refused = set(allowed), {}
  for name in pairs(set(add)) do
    if not allow[name] and not allow.ALL then refused[name] = true end
  end
  return tables.keys(refused)
end

--- The engine's CapAdd and CapDrop. Capabilities of its default set that the agent does not allow are dropped too.
---@param add? string[]
---@param drop? string[]
---@param allowed string[]
---@return string[] add
---@return string[] drop
function M.delta(add, drop, allowed)
  local allow, dropped = set(allowed), set(drop)
  if not allow.ALL and not dropped.ALL then
    for _, name in ipairs(M.default) do dropped[name] = dropped[name] or not allow[name] or nil end
  end
  return tables.keys(set(add)), dropped.ALL and { "ALL" } or tables.keys(dropped)
end

return M
