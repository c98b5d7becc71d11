-- Paths that a job names, on the host: where they lead, and whether that is in the task's own directories.
--
-- A task can write in its directories, so that what is a directory at one moment may be a link to / at the next. Paths
-- are therefore looked at twice: as text when a job is planned, and as what they really are when a container is made; the
-- engine then gets the latter, which holds no link any more.
local dirs = require "dockrun.driver.dirs"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

-- An absolute path without ".", ".." and "//"; what leads above / stays there.
local function clean(path)
  local parts = {}
  if path:sub(1, 1) ~= "/" then path = uv.cwd() .. "/" .. path end  -- a state directory may be given as a relative one
  for part in path:gmatch "[^/]+" do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

local function within(path, directory) return path == directory or path:sub(1, #directory + 1) == directory .. "/" end

-- A task's own directory, which holds local/.
local function home(of) return (of.task:gsub("/[^/]+$", "")) end

--- Where a path of the job stands for on the host, as text.
---@param of AllocDirs
---@param path string  a relative one is in the task's directory
---@return string path
function M.path(of, path) return clean(path:sub(1, 1) == "/" and path or home(of) .. "/" .. path) end

--- Whether a path is, by its text, in the task's directory or in the allocation's.
---@param of AllocDirs
---@param path string
---@return boolean
function M.is_own(of, path)
  path = M.path(of, path)
  return within(path, clean(of.alloc)) or within(path, clean(home(of)))
end

--- Stands for the directories of a task that has none yet.
---@param task string
---@return AllocDirs
function M.planned(task) return dirs.of("", "planned", task) end

-- What a path really is. What is not there yet may be missing at its end; a link that leads nowhere is no such thing.
local function real(path)
  local rest = ""
  while true do
    local found = uv.fs_realpath(path)
    if found then return clean(found .. rest) end
    if path == "/" or uv.fs_lstat(path) then return nil end
    local above, name = path:match "^(.*)/([^/]+)$"
    path, rest = above == "" and "/" or above, "/" .. name .. rest
  end
end

local function outside(path)
  return nil, runtime.error("invalid", ("%s leads out of the task's directories"):format(path))
end

--- What a path of the job really is, if that is in the task's own directories.
---@param of AllocDirs  made
---@param path string
---@return string? path
---@return table? err  kind "invalid"
function M.own(of, path)
  -- Only what is above the task's directories is ours alone: it says where they are.
  local root = uv.fs_realpath(of.root)
  local name = home(of):match "[^/]+$"
  local found = root and M.is_own(of, path) and real(M.path(of, path))
  if not found or not (within(found, root .. "/alloc") or within(found, root .. "/" .. name)) then return outside(path) end
  return found
end

-- What a task calls /local and /alloc, as a path of the job.
local function archive_path(of, path)
  if path:find "^/alloc/" then return of.alloc .. path:sub(7) end
  if path:find "^/local/" then return of.task .. path:sub(7) end
  return path:sub(1, 1) == "/" and path or of.task .. "/" .. path
end

--- Whether `load` names, by its text, something in the task's own directories.
---@param of AllocDirs
---@param path string
---@return boolean
function M.is_archive(of, path) return M.is_own(of, archive_path(of, path)) end

local CHUNK = 256 * 1024

--- Opens an image archive in the task's own directories.
---@param of AllocDirs
---@param path string  of `load`
---@return fun(): string?? read  the next piece, nil at the end
---@return table err_or_file    to be closed
function M.open_archive(of, path)
  local found, err = M.own(of, archive_path(of, path))
  if not found then return nil, err end
  -- Whatever is put in its place meanwhile: what was opened counts. Not blocking, as it may be a pipe.
  local fd, why = uv.fs_open(found, uv.constants.O_RDONLY | uv.constants.O_NONBLOCK, 0)
  if not fd then return nil, runtime.error("invalid", ("cannot open the image archive %s: %s"):format(path, why)) end
  local file = setmetatable({}, { __close = function() uv.fs_close(fd) end })
  local opened = uv.fs_readlink("/proc/self/fd/" .. fd)
  if opened ~= found or uv.fs_fstat(fd).type ~= "file" then
    uv.fs_close(fd)
    return nil, runtime.error("invalid", ("the image archive %s is not a file"):format(path))
  end
  local at = 0
  return function()
    local data = assert(uv.fs_read(fd, CHUNK, at))
    at = at + #data
    return data ~= "" and data or nil
  end, file
end

return M
