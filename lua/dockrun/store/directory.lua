--- The state directory. No other user may read it: job definitions hold secrets, and the sockets in it take commands.
---
---   <state-dir>            0700; 0711 if the engine maps users: their containers must reach alloc/
---   <state-dir>/state.db   0600, and its -wal and -shm files
---   <state-dir>/jobs       0700, the sockets; 0710 and of the group that `socket_group` names
---   <state-dir>/alloc      0711, see driver/allocdir.lua
---
--- The modes hold whatever the umask is. A directory with too wide a mode is tightened. A directory or file of another user,
--- or another user's link on the way there, is refused: its owner could replace it.
local fs = require "dockrun.util.fs"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local PRIVATE, PASSABLE, GROUP = tonumber("700", 8), tonumber("711", 8), tonumber("710", 8)
local STICKY, WRITABLE, PERMISSIONS = tonumber("1000", 8), tonumber("022", 8), tonumber("7777", 8)

-- The entries that dockrun makes in it, with their modes.
local own = {
  ["state.db"] = tonumber("600", 8), ["state.db-wal"] = tonumber("600", 8), ["state.db-shm"] = tonumber("600", 8),
  ["state.db-journal"] = tonumber("600", 8), jobs = PRIVATE, alloc = PASSABLE,
}

local kinds = { ENOSPC = "full", EDQUOT = "full", EROFS = "readonly", EACCES = "readonly", EPERM = "readonly" }

local function failure(path, why, code)
  return runtime.error(kinds[code] or "system", ("cannot make the directory %s: %s"):format(path, why))
end

local function refuse(path, format, ...) return runtime.error("system", ("refusing %s: %s"):format(path, format:format(...))) end

-- The error for an entry of another user.
local function foreign(path, stat)
  return refuse(path, "it belongs to user %d, but dockrun runs as user %d; remove it, or name another --state-dir", stat.uid,
    uv.getuid())
end

local function mode_of(stat) return stat.mode & PERMISSIONS end

-- Follows the links of a path: an error for the first one that belongs neither to root nor to this user.
local function check_links(path)
  local rest, done, followed = path, path:find "^/" and "" or ".", 0
  while true do
    local part, after = rest:match "^/*([^/]+)(.*)$"
    if not part then return true end
    local at = done .. "/" .. part
    local stat = uv.fs_lstat(at)
    if not stat then return true end  -- not made yet
    if stat.type == "link" then
      followed = followed + 1
      if stat.uid ~= 0 and stat.uid ~= uv.getuid() then return nil, foreign(at, stat) end
      local target = uv.fs_readlink(at)
      if not target or followed > 40 then return nil, refuse(path, "it has too many symbolic links") end
      rest, done = target .. after, target:find "^/" and "" or done
    else
      rest, done = after, at
    end
  end
end

-- Whether it holds something that dockrun did not put there.
local function is_shared(dir)
  for _, name in ipairs(fs.list(dir)) do
    if not own[name] then return true end
  end
  return false
end

-- Tightens the mode of the directory itself. A directory that holds other files too, such as /tmp, keeps its mode.
local function tighten(dir, stat)
  local mode = mode_of(stat)
  if not is_shared(dir) and mode & STICKY == 0 then
    if mode == PASSABLE then return true end
    return mode == PRIVATE or uv.fs_chmod(dir, PRIVATE)
  end
  if mode & WRITABLE == 0 or mode & STICKY ~= 0 then return true end
  return nil, "it holds other files, and other users may write to it; run `chmod go-w` on it, or name an empty directory with --state-dir"
end

-- Checks each entry of dockrun: its owner, its kind and its mode.
local function check_contents(dir, change)
  for name, most in pairs(own) do
    local path = dir .. "/" .. name
    local link, stat = uv.fs_lstat(path), uv.fs_stat(path)
    for _, one in ipairs { link or false, stat or false } do
      if one and one.uid ~= uv.getuid() then return nil, foreign(path, one) end
    end
    local kind = name:find "^state%.db" and "file" or "directory"
    if stat and stat.type ~= kind then  -- opening a FIFO would wait for ever
      return nil, refuse(path, "expected a %s, got a %s; move it away", kind, stat.type)
    end
    local mode = stat and mode_of(stat)
    local is_group = name == "jobs" and mode == GROUP  -- of `socket_group`
    if change and stat and not is_group and mode & ~most ~= 0 then
      local ok, why = uv.fs_chmod(path, mode & most)
      if not ok then return nil, refuse(path, "cannot remove other users' access: %s", why) end
    end
  end
  return true
end

--- Makes the state directory if there is none, and checks that no other user has access.
---@param dir string
---@param readonly? boolean  makes and changes nothing; a missing entry or too wide a mode is no error
---@return true? ok
---@return table? err  kind "system", "full", "readonly": names the directory
function M.open(dir, readonly)
  local ok, err = check_links(dir)
  if not ok then return nil, err end
  local why, code
  if not readonly then
    ok, why, code = fs.make_directory(dir, PRIVATE)
    if not ok then return nil, failure(dir, why, code) end
  end
  local stat = uv.fs_stat(dir)
  if not stat then return true end
  if stat.uid ~= uv.getuid() then return nil, foreign(dir, stat) end
  if not readonly then
    ok, why = tighten(dir, stat)
    if not ok then return nil, refuse(dir, "%s", why) end
  end
  return check_contents(dir, not readonly)
end

--- Gives containers whose users the engine maps access to alloc/.
---@param dir string
function M.let_through(dir)
  local stat = uv.fs_stat(dir)
  if stat and mode_of(stat) == PRIVATE then uv.fs_chmod(dir, PASSABLE) end
end

--- Makes the directory of the sockets.
---@param dir string   the state directory
---@param gid? integer  a group whose members may connect
---@return string? path
---@return table? err
function M.sockets(dir, gid)
  local path = dir .. "/jobs"
  local ok, why, code = fs.make_directory(path, PRIVATE)
  local stat = ok and uv.fs_stat(path)
  if stat and gid then
    ok, why, code = uv.fs_chown(path, -1, gid)
    if ok then ok, why, code = uv.fs_chmod(path, GROUP) end
    if ok then M.let_through(dir) end
  elseif stat and mode_of(stat) ~= PRIVATE and mode_of(stat) ~= GROUP then
    ok, why, code = uv.fs_chmod(path, PRIVATE)
  end
  if not ok then return nil, failure(path, why, code) end
  return path
end

return M
