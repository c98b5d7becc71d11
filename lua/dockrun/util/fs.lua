--- Files and directories: what three rooms or more do with them. The directories that tasks write to are not for this file:
--- core/host/beneath.h walks those.
local queue = require "dockrun.core.queue"
local uv = require "luv"

local M = {}

local CHUNK = 64 * 1024
local FLAGS = uv.constants.O_RDONLY | uv.constants.O_NONBLOCK | uv.constants.O_NOCTTY

local function closing(close) return setmetatable({}, { __close = close }) end

--- The text of a regular file, or of one of /proc.
---@param path string
---@return string? text
---@return string? why  names the path
function M.read(path)
  local file, why = io.open(path)
  if not file then return nil, why end
  local text
  text, why = file:read "a"
  file:close()
  return text, why
end

-- Waits until the descriptor has something to read, or has ended.
local function await(fd)
  local news = queue.new()
  local poll = assert(uv.new_poll(fd))
  local _ <close> = closing(function() poll:close() end)
  assert(poll:start("rd", function() news:push(true) end))
  news:pop()
end

-- The next piece; "" at the end.
local function piece(fd)
  while true do
    local data, why, code = uv.fs_read(fd, CHUNK)
    if data or code ~= "EAGAIN" then return data, why end
    await(fd)
  end
end

--- The text of a file of any kind: also of a pipe, a terminal or /proc/kmsg, which may have nothing to read yet. Other
--- fibers run meanwhile, and a signal ends the wait.
---@param path string
---@param most integer  bytes; at most one more is returned
---@param accept? fun(stat: table): string?  why such a file (as of uv.fs_fstat) is not read
---@return string? text
---@return string? why
function M.read_any(path, most, accept)
  local fd, problem = uv.fs_open(path, FLAGS, 0)
  if not fd then
    local file, why = io.open(path)  -- for Lua's words
    if file then file:close() end
    return nil, why or problem
  end
  local _ <close> = closing(function() uv.fs_close(fd) end)
  local stat = uv.fs_fstat(fd)
  local refusal, kind = accept and accept(stat), stat.type
  if refusal then return nil, ("%s: %s"):format(path, refusal) end
  if kind == "directory" then return nil, path .. ": is a directory" end
  if kind == "fifo" then await(fd) end  -- before a writer opens it, a read reports its end
  local pieces, size = {}, 0
  repeat
    local data, why = piece(fd)
    if not data then return nil, ("%s: %s"):format(path, why) end
    pieces[#pieces + 1], size = data, size + #data
  until data == "" or size > most
  return table.concat(pieces):sub(1, most + 1)
end

--- Makes a directory and those above it. What it makes has this mode, whatever the umask is; a directory that is there
--- keeps its own.
---@param path string
---@param mode integer
---@return boolean? ok
---@return string? why
---@return string? code  "ENOSPC"
function M.make_directory(path, mode)
  local ok, why, code = uv.fs_mkdir(path, mode)
  local above = path:match "^(.+)/+[^/]+/*$"
  if code == "ENOENT" and above then
    ok, why, code = M.make_directory(above, mode)
    if ok then ok, why, code = uv.fs_mkdir(path, mode) end
  end
  if code == "EEXIST" then return true end
  if ok then ok, why, code = uv.fs_chmod(path, mode) end
  return ok, why, code
end

--- The names in a directory, in no order.
---@param path string
---@return string[] names  empty if the directory cannot be read
function M.list(path)
  local names, entries = {}, uv.fs_scandir(path)  -- libuv frees the list only at its end
  for name in function() return entries and uv.fs_scandir_next(entries) end do names[#names + 1] = name end
  return names
end

return M
