--- Bind sources: the paths of an allocation that its tasks bind (the "source" of Docker's bind mounts), each a directory or a
--- file of its own which no task can rename or replace, so that the engine may be given its path.
---
---   task a, volumes = { "local/conf:/etc/x", "../alloc/data:/data" }
---
---   bind source   is at                                  task a binds it at            task b of the allocation at
---   alloc         <root>/alloc                           /alloc                        /alloc
---   alloc/data    <root>/.places/2/alloc/data            /alloc/data, /data            /alloc/data
---   a/local       <root>/a/local                         /local
---   a/local/conf  <root>/.places/3/a/local/conf          /local/conf, /etc/x
---   a             <root>/.places/1/a                     the target of its volume ".", with a/local in it
---
--- The number counts the names of the path: of two paths below the same number, neither contains the other.
---
--- If a bind source is bound, the bind sources in it are bound too, at their names in it. There each is a mountpoint, and a
--- mountpoint cannot be renamed or removed. So that no directory above a mountpoint can be renamed either, every directory
--- between a bind source and `alloc` or `a/local` is a bind source too. Every mountpoint exists before the engine looks for
--- it. A task without the engine's filter of system calls can rename its mountpoints all the same: therefore no path that
--- the engine gets leads through a bound directory.
---
--- A file or directory that was at the path before it became a bind source (made by a task that ended, a hook or an older
--- dockrun) is moved there. If there is none, a directory is made.
local beneath = require "dockrun.core.beneath"
local allocdir = require "dockrun.driver.allocdir"
local paths = require "dockrun.driver.paths"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local STORE = ".places"  -- no task can have this name; the name on disk must stay
local ANY, HIDDEN = tonumber("777", 8), tonumber("711", 8)
local DEEPEST = 32              -- directories above a bind source: each is one too, and a mount
local REPLACED = ".replaced"    -- for files that tasks put at mountpoints; removed with the allocation
local ABSORBED = 50             -- names that are moved before other fibers run: some milliseconds

---@class BindSources
---@field of AllocDirs
---@field home string  the task's own directory in the root
---@field real string  the root, without links
---@field root table   core/host/beneath.h
---@field known table<string, true>
---@field moved string[]  paths that all tasks share and that are bind sources only since now
local BindSources = {}
BindSources.__index = BindSources

function BindSources:__close() self.root:close() end

local function above(path) return path:match "^(.*)/[^/]+$", path:match "[^/]+$" end

local within = paths.within

local function outside(path)
  return nil, runtime.error("invalid", ("%s leads out of the task's directories"):format(path))
end

-- Finds the bind sources below a directory of the store, at this depth.
function BindSources:learn(directory, prefix, depth)
  for _, name in ipairs(self.root:list(directory) or {}) do
    if depth == 1 then
      self.known[prefix .. name] = true
    else
      self:learn(directory .. "/" .. name, prefix .. name .. "/", depth - 1)
    end
  end
end

--- The bind sources of a task's allocation.
---@param of AllocDirs  made
---@return BindSources? sources  to be closed
---@return table? err  kind "system"
function M.open(of)
  local root, err = beneath.open(of.root)
  if not root then return nil, err end
  local self = setmetatable({
    of = of, home = paths.home(of):match "[^/]+$", real = uv.fs_realpath(of.root) or of.root, root = root, known = {}, moved = {},
  }, BindSources)
  for _, depth in ipairs(root:list(STORE) or {}) do self:learn(STORE .. "/" .. depth, "", math.tointeger(tonumber(depth))) end
  return self
end

-- Whether it is a directory of allocdir.lua, which is not in the store.
function BindSources:is_fixed(source) return source == "alloc" or source == self.home .. "/local" end

-- The path of a bind source below the root.
function BindSources:at(source)
  if self:is_fixed(source) then return source end
  local _, slashes = source:gsub("/", "")
  return ("%s/%d/%s"):format(STORE, slashes + 1, source)
end

--- The path of a bind source on the host.
---@param source string
---@return string path
function BindSources:path(source) return self.real .. "/" .. self:at(source) end

--- The real path, below the root, of a path of the allocation: in the nearest bind source.
---@param path string
---@return string
function BindSources:locate(path)
  local source, rest = path, ""
  while source and not (self:is_fixed(source) or self.known[source]) do
    local name
    source, name = above(source)
    rest = "/" .. name .. rest
  end
  return source and self:at(source) .. rest or path
end

-- Resolves the links in a path. The last names of the path may be missing.
function BindSources:follow(path)
  local rest = ""
  while path do
    local found, err = self.root:resolve(self:locate(path))
    if err then return nil, err end
    if found then return (found:match "^%.places/%d+/(.*)$" or found) .. rest end
    local name
    path, name = above(path)
    rest = "/" .. name .. rest
  end
end

-- Moves files that were put at a bind source's path, from outside of any task that has it bound, into the bind source.
function BindSources:absorb(entry, store)
  local root = self.root
  local kind, size = root:kind(entry)
  if kind ~= root:kind(store) then return end
  if kind == "file" and size > 0 then root:rename(entry, store) end
  if kind ~= "directory" then return end
  for i, name in ipairs(root:list(entry) or {}) do
    if i % ABSORBED == 0 then runtime.sleep(0) end
    if not self:is_fixed(entry .. "/" .. name) then root:rename(entry .. "/" .. name, store .. "/" .. name) end
  end
end

function BindSources:make_above(store)
  for at in store:gmatch "()/" do
    local ok, err = self.root:make_directory(store:sub(1, at - 1), HIDDEN)
    if not ok then return nil, err end
  end
  return true
end

-- Makes the content of a new bind source. nil, err if a link is there.
function BindSources:begin(entry, store, wanted)
  local root = self.root
  local ok, err = self:make_above(store)
  local kind = ok and root:kind(entry)
  if kind == "nothing" then return root["make_" .. wanted](root, store, ANY) end
  if ok and kind ~= "link" then ok, err = root:rename(entry, store) end
  if not ok then return nil, err end
  if kind ~= "link" and root:kind(store) ~= "link" then return true end
  if kind ~= "link" then root:remove(store, 1) end  -- a task put it there meanwhile
  return nil, "a link"
end

-- Makes the mountpoint. The engine would make it otherwise, in a directory that tasks write to.
function BindSources:make_mountpoint(entry, store)
  local root = self.root
  local wanted, kind = root:kind(store) == "directory" and "directory" or "file", root:kind(entry)
  if kind == wanted then return true end
  if kind ~= "nothing" then
    local ok, err = root:make_directory(REPLACED, HIDDEN)
    if ok then ok, err = root:rename(entry, ("%s/%x"):format(REPLACED, uv.hrtime())) end
    if not ok then return nil, err end
  end
  return root["make_" .. wanted](root, entry, ANY)
end

-- Makes the task's own directory a bind source: its content moves, except local/.
function BindSources:make_home()
  local home, store = self.home, self:at(self.home)
  local ok, err = self:make_above(store)
  if ok then ok, err = self.root:make_directory(store, ANY) end
  if not ok then return nil, err end
  self.known[home] = true
  self:absorb(home, store)
  return self:make_mountpoint(store .. "/local", home .. "/local")
end

function BindSources:make_one(source, kind)
  if source == self.home then return self:make_home() end
  local parent, name = above(source)
  local entry, store = self:at(parent) .. "/" .. name, self:at(source)
  if self.known[source] or self.root:kind(store) ~= "nothing" then  -- another task may have made it since open()
    self.known[source] = true
    self:absorb(entry, store)
  else
    local ok, err = self:begin(entry, store, kind)
    if not ok then return nil, err end
    self.known[source] = true
    if within(source, "alloc") then table.insert(self.moved, source) end
  end
  return self:make_mountpoint(entry, store)
end

-- Makes a path below the root a bind source, with all directories above it. `path` is the job's own; a new one is of this kind.
function BindSources:make_inner(inner, path, kind)
  if select(2, inner:gsub("/", "")) > DEEPEST then
    return nil, runtime.error("invalid", ("cannot bind %.60s…: it is more than %d directories deep"):format(path, DEEPEST))
  end
  local source = self:follow(inner)
  if not source or not (within(source, "alloc") or within(source, self.home)) then return outside(path) end
  local chain, one = {}, source
  while one and not self:is_fixed(one) do
    table.insert(chain, 1, one)
    one = above(one)
  end
  for _, each in ipairs(chain) do
    local ok, err = self:make_one(each, each == source and kind or "directory")
    if err == "a link" then return outside(path) end
    if not ok then return nil, runtime.error("invalid", ("cannot bind %s: %s"):format(path, err)) end
  end
  return source
end

--- Makes a path of the job a bind source. Idempotent.
---@param path string  as the job has it, in the task's own directories
---@return string? source
---@return table? err  kind "invalid"
function BindSources:make(path)
  if not paths.is_own(self.of, path) then return outside(path) end
  return self:make_inner(paths.inner(self.of, path), path)
end

local function is_finite_prestart(task)
  return task.lifecycle and task.lifecycle.hook == "prestart" and not task.lifecycle.sidecar
end

-- Whether a mount's source is a file or a directory.
function BindSources:kind_of(of, source)
  if not source then return "directory" end
  if paths.is_own(of, source) then return self.root:kind(self:locate(paths.inner(of, source))) == "file" and "file" or "directory" end
  local stat = source:sub(1, 1) == "/" and uv.fs_stat(source)
  return stat and stat.type ~= "directory" and "file" or "directory"
end

-- The targets of a task's mounts that are inside of its binds: they are bind sources too, so that their mountpoints exist.
---@param of AllocDirs
---@param mounts { source?: string, target: string }[]
---@return { inner: string, source?: string, target: string }[]
local function mountpoints(of, mounts)
  local views, found = { { inner = "alloc", target = "/alloc" }, { inner = paths.inner(of, of.task), target = "/local" } }, {}
  for _, mount in ipairs(mounts) do
    if mount.source and paths.is_own(of, mount.source) then
      views[#views + 1] = { inner = paths.inner(of, mount.source), target = paths.clean(mount.target) }
    end
  end
  for _, mount in ipairs(mounts) do
    local target, nearest = paths.clean(mount.target), nil
    for _, view in ipairs(views) do
      local is_in = target ~= view.target and within(target, view.target)
      if is_in and (not nearest or #view.target > #nearest.target) then nearest = view end
    end
    if nearest then
      local rest = target:sub(#nearest.target + (nearest.target == "/" and 0 or 1))
      found[#found + 1] = { inner = nearest.inner .. rest, source = mount.source, target = target }
    end
  end
  return found
end

--- Makes the mountpoints of a task.
---@param mounts { source?: string, target: string }[]  of the task; source: a path
---@return true? ok
---@return table? err  kind "invalid"
function BindSources:make_mountpoints(mounts)
  for _, one in ipairs(mountpoints(self.of, mounts)) do
    local ok, err = self:make_inner(one.inner, one.target, self:kind_of(self.of, one.source))
    if not ok then return nil, err end
  end
  return true
end

--- Makes the bind sources that other tasks of the group have in the shared directory, so that this task sees them at the same
--- paths. Not for a task that ends before the others start: what it leaves there may still become a file.
---@param task table
---@param group table
---@param mounts_of fun(task: table): { source?: string, target: string }[]
function BindSources:make_shared(task, group, mounts_of)
  -- An error is reported when the other task is made.
  local function make(inner, kind)
    if within(inner, "alloc") and not inner:find("${", 1, true) then self:make_inner(inner, inner, kind) end
  end
  for _, other in ipairs(group.tasks or {}) do
    local beside = other.name ~= task.name and (is_finite_prestart(other) or not is_finite_prestart(task))
    local of, mounts = allocdir.of_task(self.of, other.name), beside and mounts_of(other) or {}
    for _, mount in ipairs(mounts) do
      if mount.source and paths.is_own(of, mount.source) then make(paths.inner(of, mount.source)) end
    end
    for _, one in ipairs(mountpoints(of, mounts)) do make(one.inner, self:kind_of(of, one.source)) end
  end
end

--- A bind source, and the bind sources in it, at a target.
---@param source string
---@param target string
---@param taken table<string, any>  targets that other mounts of the task have
---@return { source: string, target: string }[]
function BindSources:binds(source, target, taken)
  local list = { { source = source, target = target } }
  local names = {}
  for known in pairs(self.known) do
    local parent, name = above(known)
    if parent == source then names[#names + 1] = name end
  end
  if source == self.home then names[#names + 1] = "local" end
  table.sort(names)
  for _, name in ipairs(names) do
    local at = (target == "/" and "" or target) .. "/" .. name
    if not taken[at] then
      for _, bind in ipairs(self:binds(source .. "/" .. name, at, taken)) do list[#list + 1] = bind end
    end
  end
  return list
end

return M
