-- An allocation's directories on this host, and how a task sees them:
--
--   <state-dir>/alloc/<alloc id>/alloc         /alloc     shared by the tasks of the allocation, with data, logs and tmp
--   <state-dir>/alloc/<alloc id>/<task>/local  /local     the task's own
--                                              /secrets   the task's own, in memory: a tmpfs that the engine makes
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

-- Any user of a container may write (Nomad's mode too); nobody else gets through the directory above.
local SHARED, PRIVATE = tonumber("777", 8), tonumber("711", 8)
local SECRETS_BYTES = 1024 * 1024  -- as Nomad's

---@class AllocDirs
---@field root string   goes with the last task of the allocation
---@field alloc string
---@field task string

-- mkdir -p, with a mode that no umask cuts. Only what it makes itself gets the mode.
local function make(path, mode)
  local ok, why, code = uv.fs_mkdir(path, mode)
  if code == "ENOENT" then
    ok, why = make(path:match "^(.+)/[^/]+$" or "/", PRIVATE)
    if not ok then return nil, why end
    ok, why, code = uv.fs_mkdir(path, mode)
  end
  if code == "EEXIST" then return true end
  if not ok then return nil, why end
  return uv.fs_chmod(path, mode)
end

--- Where an allocation's directories are.
---@param state_dir string
---@param alloc_id string
---@param task string
---@return AllocDirs
function M.of(state_dir, alloc_id, task)
  local root = ("%s/alloc/%s"):format(state_dir, alloc_id)
  return { root = root, alloc = root .. "/alloc", task = ("%s/%s/local"):format(root, task) }
end

--- Makes them. Idempotent: the tasks of an allocation share some.
---@param dirs AllocDirs
---@return true? ok
---@return table? err  kind "system", names the directory
function M.make(dirs)
  for _, path in ipairs { dirs.alloc, dirs.alloc .. "/data", dirs.alloc .. "/logs", dirs.alloc .. "/tmp", dirs.task } do
    local ok, why = make(path, SHARED)
    if not ok then return nil, runtime.error("system", ("cannot make the directory %s: %s"):format(path, why)) end
  end
  return true
end

--- What the create body's HostConfig.Mounts gets (Engine API, Mount). Where the engine is on another host, /alloc and
--- /local are anonymous volumes there, which go with the container.
---@param dirs? AllocDirs
---@return table[]
function M.mounts(dirs)
  return {
    { Type = dirs and "bind" or "volume", Source = dirs and dirs.alloc, Target = "/alloc" },
    { Type = dirs and "bind" or "volume", Source = dirs and dirs.task, Target = "/local" },
    { Type = "tmpfs", Target = "/secrets", TmpfsOptions = { SizeBytes = SECRETS_BYTES, Mode = SHARED } },
  }
end

--- The allocations that have directories here.
---@param state_dir string
---@return string[] ids
function M.list(state_dir)
  local ids, entries = {}, uv.fs_scandir(state_dir .. "/alloc")
  while entries do
    local name = uv.fs_scandir_next(entries)
    if not name then break end
    if name:find "^[%x-]+$" then ids[#ids + 1] = name end
  end
  return ids
end

-- A container could have left symbolic links here: they go, what they point to stays.
local function remove(path)
  local stat = uv.fs_lstat(path)
  if not stat then return true end
  if stat.type ~= "directory" then return uv.fs_unlink(path) end
  local entries = uv.fs_scandir(path)
  while entries do
    local name = uv.fs_scandir_next(entries)
    if not name then break end
    local ok, why = remove(path .. "/" .. name)
    if not ok then return nil, why end
  end
  return uv.fs_rmdir(path)
end

--- Removes an allocation's directories, with all that its tasks left there. Idempotent.
---@param root string  AllocDirs.root
---@return true? ok
---@return table? err  kind "system"
function M.remove(root)
  assert(root:match "/alloc/[%x-]+$", "not the directory of an allocation")
  local ok, why = remove(root)
  if not ok then return nil, runtime.error("system", ("cannot remove the directory %s: %s"):format(root, why)) end
  return true
end

return M
