-- Places: the paths of an allocation that its tasks bind, each a directory (or a file) of its own which no task can
-- rename or replace, so that the engine may be given its path.
--
--   task a, volumes = { "local/conf:/etc/x", "../alloc/data:/data" }
--
--   place         is at                                  task a binds it at            task b of the allocation at
--   alloc         <root>/alloc                           /alloc                        /alloc
--   alloc/data    <root>/.places/2/alloc/data            /alloc/data, /data            /alloc/data
--   a/local       <root>/a/local                         /local
--   a/local/conf  <root>/.places/3/a/local/conf          /local/conf, /etc/x
--   a             <root>/.places/1/a                     what its volume "." says, with a/local in it
--
-- The number is how many names the path has: of two paths in one of these directories, none is in the other.
--
-- Wherever a place is bound, the places in it are bound at their names in it. There each is a mountpoint, and a
-- mountpoint cannot be renamed or removed. So that no directory above a mountpoint can be either, whatever lies between
-- a place and `alloc` or `a/local` is a place too. The engine finds each mountpoint made. A task without the engine's filter
-- of system calls can rename its mountpoints all the same: so no path that the engine gets leads through what is bound.
--
-- What was at a place before it became one (a task that ended, a hook, an older dockrun left it) is moved there. What is
-- bound and is not there becomes a directory.
local beneath = require "dockrun.core.beneath"
local allocdir = require "dockrun.driver.allocdir"
local paths = require "dockrun.driver.paths"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local STORE = ".places"  -- no task can be called that
local ANY, HIDDEN = tonumber("777", 8), tonumber("711", 8)
local DEEPEST = 32              -- directories on the way to a place: each is one itself, and a mount
local REPLACED = ".replaced"    -- what tasks had put at mountpoints; goes with the allocation
local ABSORBED = 50             -- names that are moved before other tasks of this process have their turn: some milliseconds

---@class Places
---@field of AllocDirs
---@field home string  the task's own directory in the root
---@field real string  the root, without links
---@field root table   core/host/beneath.h
---@field known table<string, true>
---@field moved string[]  what all tasks share and had without a place until now
local Places = {}
Places.__index = Places

function Places:__close() self.root:close() end

local function above(path) return path:match "^(.*)/[^/]+$", path:match "[^/]+$" end

local within = paths.within

local function outside(path)
  return nil, runtime.error("invalid", ("%s leads out of the task's directories"):format(path))
end

-- The places that there are below a directory of the store, so many names from here.
function Places:learn(directory, prefix, depth)
  for _, name in ipairs(self.root:list(directory) or {}) do
    if depth == 1 then
      self.known[prefix .. name] = true
    else
      self:learn(directory .. "/" .. name, prefix .. name .. "/", depth - 1)
    end
  end
end

--- The places of a task's allocation.
---@param of AllocDirs  made
---@return Places? places  to be closed
---@return table? err  kind "system"
function M.open(of)
  local root, err = beneath.open(of.root)
  if not root then return nil, err end
  local self = setmetatable({
    of = of, home = paths.home(of):match "[^/]+$", real = uv.fs_realpath(of.root) or of.root, root = root, known = {}, moved = {},
  }, Places)
  for _, depth in ipairs(root:list(STORE) or {}) do self:learn(STORE .. "/" .. depth, "", math.tointeger(tonumber(depth))) end
  return self
end

-- What is where it always was: the directories of allocdir.lua.
function Places:is_fixed(place) return place == "alloc" or place == self.home .. "/local" end

-- Where a place is, below the root.
function Places:at(place)
  if self:is_fixed(place) then return place end
  local _, slashes = place:gsub("/", "")
  return ("%s/%d/%s"):format(STORE, slashes + 1, place)
end

--- Where it is on the host.
---@param place string
---@return string path
function Places:path(place) return self.real .. "/" .. self:at(place) end

--- Where a path of the allocation is, below the root: in the nearest place.
---@param path string
---@return string
function Places:locate(path)
  local place, rest = path, ""
  while place and not (self:is_fixed(place) or self.known[place]) do
    local name
    place, name = above(place)
    rest = "/" .. name .. rest
  end
  return place and self:at(place) .. rest or path
end

-- Where a path leads, if links are on its way. What is not there may be missing at its end.
function Places:follow(path)
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

-- Moves what was put at a place's name, from outside of any task that has it bound, to the place.
function Places:absorb(entry, store)
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

function Places:make_above(store)
  for at in store:gmatch "()/" do
    local ok, err = self.root:make_directory(store:sub(1, at - 1), HIDDEN)
    if not ok then return nil, err end
  end
  return true
end

-- What a place begins with. nil, err if a link is there.
function Places:begin(entry, store, wanted)
  local root = self.root
  local ok, err = self:make_above(store)
  local kind = ok and root:kind(entry)
  if kind == "nothing" then return root["make_" .. wanted](root, store, ANY) end
  if ok and kind ~= "link" then ok, err = root:rename(entry, store) end
  if not ok then return nil, err end
  if kind ~= "link" and root:kind(store) ~= "link" then return true end
  if kind ~= "link" then root:remove(store, 1) end  -- a task was as quick as that
  return nil, "a link"
end

-- Where it is to be bound: what the engine would make else, in a directory that tasks write to.
function Places:make_mountpoint(entry, store)
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

-- The task's own directory: what is in it moves, but for local/, which is where it was.
function Places:make_home()
  local home, store = self.home, self:at(self.home)
  local ok, err = self:make_above(store)
  if ok then ok, err = self.root:make_directory(store, ANY) end
  if not ok then return nil, err end
  self.known[home] = true
  self:absorb(home, store)
  return self:make_mountpoint(store .. "/local", home .. "/local")
end

function Places:make_one(place, kind)
  if place == self.home then return self:make_home() end
  local parent, name = above(place)
  local entry, store = self:at(parent) .. "/" .. name, self:at(place)
  if self.known[place] or self.root:kind(store) ~= "nothing" then  -- made by another task, maybe since this one looked
    self.known[place] = true
    self:absorb(entry, store)
  else
    local ok, err = self:begin(entry, store, kind)
    if not ok then return nil, err end
    self.known[place] = true
    if within(place, "alloc") then table.insert(self.moved, place) end
  end
  return self:make_mountpoint(entry, store)
end

-- Makes a path below the root a place, with all above it. `path` is what the job calls it; a new one is of this kind.
function Places:make_inner(inner, path, kind)
  if select(2, inner:gsub("/", "")) > DEEPEST then
    return nil, runtime.error("invalid", ("cannot bind %.60s…: it is more than %d directories deep"):format(path, DEEPEST))
  end
  local place = self:follow(inner)
  if not place or not (within(place, "alloc") or within(place, self.home)) then return outside(path) end
  local chain, one = {}, place
  while one and not self:is_fixed(one) do
    table.insert(chain, 1, one)
    one = above(one)
  end
  for _, each in ipairs(chain) do
    local ok, err = self:make_one(each, each == place and kind or "directory")
    if err == "a link" then return outside(path) end
    if not ok then return nil, runtime.error("invalid", ("cannot bind %s: %s"):format(path, err)) end
  end
  return place
end

--- Makes a path of the job a place. Idempotent.
---@param path string  as the job has it, one of its own
---@return string? place
---@return table? err  kind "invalid"
function Places:make(path)
  if not paths.is_own(self.of, path) then return outside(path) end
  return self:make_inner(paths.inner(self.of, path), path)
end

local function is_finite_prestart(task)
  return task.lifecycle and task.lifecycle.hook == "prestart" and not task.lifecycle.sidecar
end

-- Whether a file or a directory is to be mounted somewhere.
function Places:kind_of(of, source)
  if not source then return "directory" end
  if paths.is_own(of, source) then return self.root:kind(self:locate(paths.inner(of, source))) == "file" and "file" or "directory" end
  local stat = source:sub(1, 1) == "/" and uv.fs_stat(source)
  return stat and stat.type ~= "directory" and "file" or "directory"
end

--- Where a task has something mounted in what it binds: these are places too, so that the engine finds its mountpoints.
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
function Places:make_mountpoints(mounts)
  for _, one in ipairs(mountpoints(self.of, mounts)) do
    local ok, err = self:make_inner(one.inner, one.target, self:kind_of(self.of, one.source))
    if not ok then return nil, err end
  end
  return true
end

--- Makes what other tasks of the group bind and mount in what all share, so that a task sees it where they do. What a
--- task leaves that ends before they begin may be a file yet, so it has them as they were.
---@param task table
---@param group table
---@param mounts_of fun(task: table): { source?: string, target: string }[]
function Places:make_shared(task, group, mounts_of)
  -- What is wrong with one its own task tells.
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

--- A place, and the places in it, at a target.
---@param place string
---@param target string
---@param taken table<string, any>  targets at which the task has something else
---@return { place: string, target: string }[]
function Places:binds(place, target, taken)
  local list = { { place = place, target = target } }
  local names = {}
  for known in pairs(self.known) do
    local parent, name = above(known)
    if parent == place then names[#names + 1] = name end
  end
  if place == self.home then names[#names + 1] = "local" end
  table.sort(names)
  for _, name in ipairs(names) do
    local at = (target == "/" and "" or target) .. "/" .. name
    if not taken[at] then
      for _, bind in ipairs(self:binds(place .. "/" .. name, at, taken)) do list[#list + 1] = bind end
    end
  end
  return list
end

return M
