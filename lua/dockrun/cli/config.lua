-- Which files give the options of the command. A host program reads none of them: it sets dockrun.options.
local options = require "dockrun.options"
local uv = require "luv"

local M = {}

local SYSTEM = "/etc/dockrun/config.lua"
local OTHERS_WRITE = tonumber("022", 8)

-- "…/dockrun/config.lua" of the user; nil if there is no place for it. The XDG base directory specification: a path that
-- is not absolute does not count.
local function of_user()
  local base, home = os.getenv "XDG_CONFIG_HOME" or "", os.getenv "HOME" or ""
  if base == "" and home ~= "" then base = home .. "/.config" end
  return base:find "^/" and base .. "/dockrun/config.lua" or nil
end

-- Root does not take options from a file that another user can write to.
local function accept(stat)
  if stat.type ~= "file" then return "expected a regular file, got a " .. stat.type end
  if uv.getuid() ~= 0 then return nil end
  if stat.uid ~= 0 then return ("its owner is user %d; root reads a config of root only: chown root"):format(stat.uid) end
  if stat.mode & OTHERS_WRITE ~= 0 then return "others than its owner may write to it; take that away: chmod go-w" end
end

--- Sets options from the files: those of the system, then those of the user; or from one that is named, and from no other.
---@param set table<string, any>
---@param named? string
---@return true? ok
---@return table? err  kind "invalid", names the file
function M.read(set, named)
  if named then return options.read_file(set, named) end
  for _, path in ipairs { SYSTEM, of_user() } do
    local _, _, code = uv.fs_stat(path)
    if code ~= "ENOENT" and code ~= "ENOTDIR" then
      local ok, err = options.read_file(set, path, accept)
      if not ok then return nil, err end
    end
  end
  return true
end

return M
