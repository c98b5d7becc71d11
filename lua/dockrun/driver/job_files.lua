--- Files that a job names and this process reads: `load`, seccomp profiles. They are in the task's own directories or in one
--- that the agent's option `job_files` lists, and nowhere else. A job does not learn which other paths exist.
local beneath = require "dockrun.core.beneath"
local paths = require "dockrun.driver.paths"
local bind_sources = require "dockrun.driver.bind_sources"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

-- The path on the host: of /local/…, of /alloc/…, or of a relative path, which is in /local.
local function path_of(of, path)
  if of and path:find "^/alloc/" then return of.alloc .. path:sub(7) end
  if of and path:find "^/local/" then return of.task .. path:sub(7) end
  return of and path:sub(1, 1) ~= "/" and of.task .. "/" .. path or path
end

-- The directory of job_files that a path is in.
local function directory_of(path, allowed)
  if path:sub(1, 1) ~= "/" then return nil end
  for _, directory in ipairs(allowed) do
    local clean = paths.clean(directory)
    if paths.within(paths.clean(path), clean) then return clean end
  end
end

--- Whether a job may name the file, by the text of its path.
---@param of? AllocDirs  nil with an engine on another host
---@param path string
---@param options table<string, any>
---@return boolean
function M.is_allowed(of, path, options)
  path = path_of(of, path)
  return of ~= nil and paths.is_own(of, path) or directory_of(path, options.job_files) ~= nil
end

local function refused(of, path)
  if not of then
    return nil, runtime.error("invalid", ("'%s' is not in the agent's job_files; "
      .. "a task has no directories of its own if the engine is on another host"):format(path))
  end
  return nil, runtime.error("invalid", ("'%s' is neither in the task's own directories nor in the agent's job_files"):format(path))
end

--- The file of a security_opt that names a seccomp profile.
---@param option string
---@return string? path
function M.profile(option)
  local path = option:match "^seccomp[=:](.+)$"
  return path ~= "unconfined" and path ~= "builtin" and path or nil
end

-- Opens the file's directory; with the file's path in it.
local function find(of, path, allowed)
  local full = path_of(of, path)
  if of and paths.is_own(of, full) then
    local found <close>, err = bind_sources.open(of)
    if not found then return nil, err end
    local inner = paths.inner(of, full)
    return beneath.open(of.root), found:locate(inner)
  end
  local directory = directory_of(full, allowed)
  if not directory then return refused(of, path) end
  return beneath.open(uv.fs_realpath(directory) or directory), paths.clean(full):sub(#directory + (directory == "/" and 1 or 2))
end

-- errno -> its meaning here
local reasons = {
  [2] = "it does not exist", [18] = "it leads out of its directory", [22] = "it is not a regular file",
  [40] = "it leads out of its directory",
}

--- Opens a file, which is read up to its size at this moment.
---@param of? AllocDirs
---@param path string
---@param options table<string, any>
---@return integer? descriptor
---@return table|integer err_or_size  kind "invalid", or bytes
local function open(of, path, options)
  local directory <close>, inner = find(of, path, options.job_files)
  if not directory then return nil, inner end
  local fd, size = directory:open_file(inner)
  if fd then return fd, size end
  return nil, runtime.error("invalid", ("cannot open '%s': %s"):format(path, reasons[size.code] or size.message))
end

local CHUNK = 256 * 1024

--- Opens a file to be read piece by piece.
---@param of? AllocDirs
---@param path string
---@param options table<string, any>
---@return fun(): string?? read  the next piece, nil at the end
---@return table err_or_file     kind "invalid"; to be closed
function M.open(of, path, options)
  local fd, size = open(of, path, options)
  if not fd then return nil, size end
  local at = 0
  return function()
    local data = assert(uv.fs_read(fd, math.min(CHUNK, size - at), at))
    at = at + #data
    return data ~= "" and data or nil
  end, setmetatable({}, { __close = function() uv.fs_close(fd) end })
end

--- Reads a file.
---@param of? AllocDirs
---@param path string
---@param options table<string, any>
---@param most integer  bytes
---@return string? text
---@return table? err  kind "invalid"
function M.read(of, path, options, most)
  local fd, size = open(of, path, options)
  if not fd then return nil, size end
  local text, why
  if size <= most then text, why = uv.fs_read(fd, size, 0) else why = ("it is larger than %d bytes"):format(most) end
  uv.fs_close(fd)
  if text then return text end
  return nil, runtime.error("invalid", ("cannot read '%s': %s"):format(path, why))
end

return M
