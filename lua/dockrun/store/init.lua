--- The state that outlives a process: one SQLite database under --state-dir, which every dockrun of the host may use at
--- once. What was written is on the disk (synchronous = FULL) when a call returns; a process can be killed at any instant.
---
---   local state <close> = assert(store.open(dir))
---   state:transaction(function() … end)     all of it, or nothing
---
--- Jobs, allocations, tasks, intents and images: records.lua. Leases of ports: leases.lua. Events: events.lua. The modes of
--- the directory and its files: directory.lua.
local database = require "dockrun.store.database"
local directory = require "dockrun.store.directory"
local migrate = require "dockrun.store.migrate"
local owners = require "dockrun.store.owner"
local uv = require "luv"

local M = {}

local KEEP_EVENTS = 10000

---@class Store
---@field path string
---@field id string       names this state; containers carry it in a label
---@field owner Owner     the process that is written as owner of allocations, intents and leases: this one
---@field db Database
---@field log? Database   for events; nil if the store is read-only
---@field keep_events integer
---@field closed boolean
local Store = {}
Store.__index = Store

for _, part in ipairs { "records", "leases", "events" } do
  for name, method in pairs(require("dockrun.store." .. part)) do Store[name] = method end
end

-- ---- opening ----------------------------------------------------------------------------------

local FILE_MODE = tonumber("600", 8)

local kinds = { ENOSPC = "full", EDQUOT = "full", EROFS = "readonly", EACCES = "readonly", EPERM = "readonly" }

-- SQLite would make the file by the umask. Its -wal and -shm files get the mode of the file.
local function make(path)
  local fd, why, code = uv.fs_open(path, "wx", FILE_MODE)
  if fd then
    uv.fs_fchmod(fd, FILE_MODE)
    uv.fs_close(fd)
  end
  if fd or code == "EEXIST" then return true end
  return nil, database.error(kinds[code] or "system", ("cannot make %s: %s"):format(path, why))
end

-- The file is checked before anything is changed.
local function check(db)
  local verdict, err = db:value "PRAGMA integrity_check(1)"
  if err then return nil, err end
  if verdict ~= "ok" then
    return nil, database.error("corrupt", ("%s is damaged (%s)"):format(db.path, verdict:gsub("%s+", " ")))
  end
  return migrate.check(db)
end

local function begin(db)
  local seen, err = check(db)
  if not seen then return nil, err end
  local mode
  mode, err = db:value "PRAGMA journal_mode = WAL"
  if not mode then return nil, err end
  if mode ~= "wal" then
    return nil, database.error("store", ("%s cannot have a write-ahead log (its journal mode is %s); --state-dir must be on a "
      .. "local file system"):format(db.path, mode))
  end
  local ok
  ok, err = db:exec "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"
  if not ok or seen == migrate.version then return ok, err end
  return migrate.run(db)
end

local function begin_reading(db)
  local seen, err = check(db)
  if not seen or seen == migrate.version then return seen, err end
  if seen == 0 then return nil, database.error("missing", ("there is no state in %s yet"):format(db.path)) end
  return nil, database.error("store", ("%s was written by an older dockrun (schema version %d, not %d); run a command that writes, "
    .. "such as `dockrun gc`, to bring it up to date"):format(db.path, seen, migrate.version))
end

-- A separate connection for events: a task need not wait until their commits are on the disk.
-- https://www.sqlite.org/pragma.html#pragma_synchronous
local function open_log(path)
  local log, err = database.open(path)
  if not log then return nil, err end
  local ok
  ok, err = log:exec "PRAGMA synchronous = NORMAL"
  if ok then return log end
  log:close()
  return nil, err
end

--- Opens the state, and makes it if there is none. Several processes may do so at once.
---@param dir string
---@param opts? { readonly?: boolean, keep_events?: integer, owner?: Owner }  readonly: makes and changes nothing, and
---  never waits for a writer; keep_events: 10,000; owner: this process
---@return Store? store
---@return table? err  kind "missing" (readonly, and there is no state), "corrupt", "full", "readonly", "busy", "store" (of a
---  newer dockrun, or not of dockrun), "system" (also of another user: see store/directory.lua)
function M.open(dir, opts)
  opts = opts or {}
  local path = dir:gsub("/+$", "") .. "/state.db"
  local ok, err = directory.open(dir, opts.readonly)
  if not ok then return nil, database.error(err.kind, err.message) end
  if not opts.readonly then
    ok, err = make(path)
    if not ok then return nil, err end
  elseif not uv.fs_stat(path) then
    return nil, database.error("missing", ("there is no state in %s yet"):format(dir))
  end
  local db
  db, err = database.open(path, opts)
  if not db then return nil, err end
  ok, err = (opts.readonly and begin_reading or begin)(db)
  if not ok then
    db:close()
    return nil, err
  end
  local id, log
  id, err = db:value "SELECT id FROM identity"
  if not err and not opts.readonly then log, err = open_log(path) end
  if err then
    db:close()
    return nil, err
  end
  return setmetatable({
    db = db, log = log, path = path, id = id, owner = opts.owner or owners.this(),
    keep_events = opts.keep_events or KEEP_EVENTS, closed = false,
  }, Store)
end

-- ---- the rest ---------------------------------------------------------------------------------

--- Runs fn in a transaction: everything that it puts and removes is kept, or nothing. It is rolled back if fn raises, if fn
--- returns nil and an error, or if a call in it failed. fn must not wait (sleep, call the engine, run a hook): every other
--- writer waits for it. In a read-only store everything that fn reads is from one moment.
---@param fn fun(): ...
---@return any ...  what fn returns, true if that is nothing; nil, err if it was rolled back
function Store:transaction(fn) return self.db:transaction(fn) end

--- May be called twice.
function Store:close()
  self.closed = true
  self.db:close()
  if self.log then self.log:close() end
end

Store.__close = Store.close

function Store:__tostring() return ("state (%s%s)"):format(self.path, self.closed and ", closed" or "") end

return M
