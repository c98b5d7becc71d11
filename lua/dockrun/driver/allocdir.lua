--- An allocation's directories on this host, and their paths in a task:
---
---   <state-dir>/alloc/<alloc id>/alloc         /alloc     shared by the tasks of the allocation, with data, logs and tmp
---   <state-dir>/alloc/<alloc id>/<task>/local  /local     the task's own
---                                              /secrets   the task's own, in memory: a tmpfs that the engine makes
---   <state-dir>/alloc/<alloc id>/.places/…                what tasks bind, see bind_sources.lua
---
--- A task can change them at any moment. Therefore only core/host/beneath.h walks them. No task sees <alloc id>/ itself.
local beneath = require "dockrun.core.beneath"
local fs = require "dockrun.util.fs"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

-- Any user of a container may write (as with Nomad); the directory above keeps other users out.
local SHARED, PRIVATE = tonumber("777", 8), tonumber("711", 8)
local SECRETS_BYTES = 1024 * 1024  -- as Nomad's

---@class AllocDirs
---@field root string   removed with the last task of the allocation
---@field alloc string
---@field task string

--- The paths of an allocation's directories.
---@param state_dir string
---@param alloc_id string
---@param task string
---@return AllocDirs
function M.of(state_dir, alloc_id, task)
  return M.of_task({ root = ("%s/alloc/%s"):format(state_dir, alloc_id) }, task)
end

--- Those of another task of the same allocation.
---@param of AllocDirs
---@param task string
---@return AllocDirs
function M.of_task(of, task)
  local home = task == "alloc" and ".alloc" or task  -- not in what all tasks share
  return { root = of.root, alloc = of.root .. "/alloc", task = ("%s/%s/local"):format(of.root, home) }
end

--- Makes them. Idempotent: the tasks of an allocation share some.
---@param dirs AllocDirs
---@return true? ok
---@return table? err  kind "system", names the directory
function M.make(dirs)
  local function failed(why)
    return nil, runtime.error("system", ("cannot make the directories of %s: %s"):format(dirs.root, why))
  end
  local ok, why = fs.make_directory(dirs.root, PRIVATE)
  if not ok then return failed(why) end
  local root <close>, err = beneath.open(dirs.root)
  if not root then return failed(err) end
  local own = dirs.task:sub(#dirs.root + 2)
  for path, mode in pairs { alloc = SHARED, [own:match "^[^/]+"] = PRIVATE } do
    ok, err = root:make_directory(path, mode)
    if not ok then return failed(err) end
  end
  ok, err = root:make_directory(own, SHARED)
  for _, path in ipairs { "alloc/data", "alloc/logs", "alloc/tmp" } do  -- a task may have put another file there
    if ok and root:kind(path) == "nothing" then ok, err = root:make_directory(path, SHARED) end
  end
  if not ok then return failed(err) end
  return true
end

--- What the create body's HostConfig.Mounts gets (Engine API, Mount). If the engine is on another host, /alloc and
--- /local are anonymous volumes there, which are removed with the container.
---@param dirs? AllocDirs
---@return table[]
function M.mounts(dirs)
  return {
    { Type = dirs and "bind" or "volume", Source = dirs and dirs.alloc, Target = "/alloc" },
    { Type = dirs and "bind" or "volume", Source = dirs and dirs.task, Target = "/local" },
    { Type = "tmpfs", Target = "/secrets", TmpfsOptions = { SizeBytes = SECRETS_BYTES, Mode = SHARED } },
  }
end

--- The ids of the allocations that have directories.
---@param state_dir string
---@return string[] ids
function M.list(state_dir)
  local ids = {}
  for _, name in ipairs(fs.list(state_dir .. "/alloc")) do
    if name:find "^[%x-]+$" then ids[#ids + 1] = name end
  end
  return ids
end

-- Entries that are removed before other fibers run: some milliseconds.
local STEPS = 1000

--- Removes an allocation's directories with their content. Idempotent. Other fibers run meanwhile.
---@param root string  AllocDirs.root
---@return true? ok
---@return table? err  kind "system"
function M.remove(root)
  local above, id = root:match "^(.*/alloc)/([%x-]+)$"
  assert(id, "not the directory of an allocation")
  local _, _, code = uv.fs_lstat(root)
  if code == "ENOENT" then return true end
  local gone = nil
  local allocs <close>, err = beneath.open(above)
  while allocs do
    gone, err = allocs:remove(id, STEPS)
    if gone ~= false then break end
    runtime.sleep(0)
  end
  if not gone then return nil, runtime.error("system", ("cannot remove the directory %s: %s"):format(root, err)) end
  return true
end

return M
