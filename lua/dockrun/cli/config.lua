-- Reads the configuration files of the command. A host program reads none of them: it sets dockrun.options.
local options = require "dockrun.options"
local uv = require "luv"

local M = {}

local SYSTEM = "/etc/dockrun/config.lua"
local OTHERS_WRITE = tonumber("022", 8)

-- The user's file, or nil if no directory for it is known. The XDG base directory specification ignores a path that is not
-- absolute.
local function of_user()
  local base, home = os.getenv "XDG_CONFIG_HOME" or "", os.getenv "HOME" or ""
  if base == "" and home ~= "" then base = home .. "/.config" end
  return base:find "^/" and base .. "/dockrun/config.lua" or nil
end

-- Why a file is refused, or nil. Root reads no file that another user can change.
local function refuse(stat)
  if stat.type ~= "file" then return "expected a regular file, got a " .. stat.type end
  if uv.getuid() ~= 0 then return nil end
  if stat.uid ~= 0 then return ("its owner is user %d, but root reads only files of root; run chown root"):format(stat.uid) end
  if stat.mode & OTHERS_WRITE ~= 0 then return "other users may write to it; run chmod go-w" end
end

--- Sets options from the system's file and then the user's, or only from a file that is named.
---@param set table<string, any>
---@param named? string
---@return true? ok
---@return table? err  kind "invalid", names the file
function M.read(set, named)
  if named then return options.read_file(set, named) end
  for _, path in ipairs { SYSTEM, of_user() } do
    local _, _, code = uv.fs_stat(path)
    if code ~= "ENOENT" and code ~= "ENOTDIR" then
      local ok, err = options.read_file(set, path, refuse)
      if not ok then return nil, err end
    end
  end
  return true
end

return M
