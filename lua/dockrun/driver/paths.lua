--- Paths that a job names, as text: whether they are in the task's own directories. Links are not resolved here, since a task
--- can put one there at any moment: see bind_sources.lua and job_files.lua.
local allocdir = require "dockrun.driver.allocdir"
local uv = require "luv"

local M = {}

--- An absolute path without ".", ".." and "//"; ".." at the root stays at the root.
---@param path string
---@return string
function M.clean(path)
  local parts = {}
  if path:sub(1, 1) ~= "/" then path = uv.cwd() .. "/" .. path end  -- a state directory may be relative
  for part in path:gmatch "[^/]+" do
    if part == ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return "/" .. table.concat(parts, "/")
end

--- Whether a path is a directory or below it; both clean.
---@param path string
---@param directory string
---@return boolean
function M.within(path, directory)
  return path == directory or directory == "/" or path:sub(1, #directory + 1) == directory .. "/"
end

--- A task's own directory, which holds local/.
---@param of AllocDirs
---@return string path
function M.home(of) return (of.task:gsub("/[^/]+$", "")) end

--- The path on the host of a path of the job.
---@param of AllocDirs
---@param path string  a relative one is in the task's directory
---@return string path
function M.path(of, path) return M.clean(path:sub(1, 1) == "/" and path or M.home(of) .. "/" .. path) end

--- Whether a path is, by its text, in the task's directory or in the allocation's.
---@param of AllocDirs
---@param path string
---@return boolean
function M.is_own(of, path)
  path = M.path(of, path)
  return M.within(path, M.clean(of.alloc)) or M.within(path, M.clean(M.home(of)))
end

--- A path of the task's own, below the allocation's root: "alloc/data", "web/local".
---@param of AllocDirs
---@param path string
---@return string path
function M.inner(of, path) return M.path(of, path):sub(#M.clean(of.root) + 2) end

--- Placeholders for the directories of a task that has none yet.
---@param task string
---@return AllocDirs
function M.planned(task) return allocdir.of("", "planned", task) end

return M
