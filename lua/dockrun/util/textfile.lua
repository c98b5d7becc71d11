--- Reads a file that may be none: a pipe, a terminal, /proc/kmsg. Meanwhile other work goes on, and a signal ends it.
local queue = require "dockrun.core.queue"
local uv = require "luv"

local M = {}

local CHUNK = 64 * 1024
local FLAGS = uv.constants.O_RDONLY | uv.constants.O_NONBLOCK | uv.constants.O_NOCTTY

local function closing(close) return setmetatable({}, { __close = close }) end

-- Waits until there is something to read, or nothing will be any more.
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

--- The text of a file, waiting for it if it is no regular one.
---@param path string
---@param most integer  bytes; no more than one more is returned
---@param accept? fun(stat: table): string?  why such a file (as of uv.fs_fstat) is not read
---@return string? text
---@return string? why
function M.read(path, most, accept)
  local fd, problem = uv.fs_open(path, FLAGS, 0)
  if not fd then
    local file, why = io.open(path)  -- for the words that Lua has for it
    if file then file:close() end
    return nil, why or problem
  end
  local _ <close> = closing(function() uv.fs_close(fd) end)
  local stat = uv.fs_fstat(fd)
  local refusal, kind = accept and accept(stat), stat.type
  if refusal then return nil, ("%s: %s"):format(path, refusal) end
  if kind == "directory" then return nil, path .. ": is a directory" end
  if kind == "fifo" then await(fd) end  -- without a writer, its end would be now
  local pieces, size = {}, 0
  repeat
    local data, why = piece(fd)
    if not data then return nil, ("%s: %s"):format(path, why) end
    pieces[#pieces + 1], size = data, size + #data
  until data == "" or size > most
  return table.concat(pieces):sub(1, most + 1)
end

return M
