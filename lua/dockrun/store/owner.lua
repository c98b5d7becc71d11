--- The process that something in the state belongs to, and whether it is still alive. The kernel reuses a pid; together with
--- the start of the process and the boot it names one process for ever (proc(5): /proc/PID/stat,
--- field 22, in clock ticks since boot; /proc/sys/kernel/random/boot_id).
local fs = require "dockrun.util.fs"
local uv = require "luv"

local M = {}

---@class Owner
---@field pid integer
---@field start integer  clock ticks after the boot
---@field boot string

local function boot_id() return (fs.read "/proc/sys/kernel/random/boot_id" or "unknown"):match "%S+" end

-- The state and the start of a process. The name before them, in parentheses, may hold any character.
local function stat(pid)
  local state, rest = (fs.read(("/proc/%d/stat"):format(pid)) or ""):match "^.*%) (%S) (.*)$"
  if not state then return nil end
  local fields = {}
  for field in rest:gmatch "%S+" do fields[#fields + 1] = field end
  return state, math.tointeger(fields[22 - 3])
end

--- This process.
---@return Owner
function M.this()
  local pid = math.tointeger(uv.os_getpid())
  local _, start = stat(pid)
  return { pid = pid, start = start or 0, boot = boot_id() }
end

--- Whether a process is alive. A zombie is not.
---@param owner Owner
---@return boolean
function M.is_alive(owner)
  if owner.boot ~= boot_id() then return false end
  local state, start = stat(owner.pid)
  if state then return start == owner.start and state ~= "Z" and state ~= "X" end
  local _, _, code = uv.kill(owner.pid, 0)
  return code == "EPERM"  -- it is alive, but /proc hides it (hidepid)
end

--- Whether a signal has stopped a process (SIGSTOP, or a debugger), until it is continued.
---@param pid integer
---@return boolean
function M.is_stopped(pid)
  local state = stat(pid)
  return state == "T" or state == "t"
end

--- The text for the database: "4242 1000 0f1e".
---@param owner Owner
---@return string
function M.format(owner) return ("%d %d %s"):format(owner.pid, owner.start, owner.boot) end

---@param text string
---@return Owner
function M.parse(text)
  local pid, start, boot = text:match "^(%d+) (%d+) (%S+)$"
  return { pid = math.tointeger(pid), start = math.tointeger(start), boot = boot }
end

return M
