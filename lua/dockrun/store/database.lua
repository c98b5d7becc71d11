--- A connection to the state's database for fibers: a wait for another process's lock does not block the loop, and errors
--- say what to do.
local runtime = require "dockrun.core.runtime"
local sqlite = require "dockrun.core.sqlite"

local M = {}

-- A wait for another process's lock, in seconds: random, so that waiting processes do not all try at the same instant.
local SHORTEST, LONGEST, PATIENCE = 0.002, 0.1, 10

local advice = {
  busy = ("another process has kept it locked for %d s; find the one that hangs with fuser, then try again"):format(PATIENCE),
  full = "make room on its file system, then try again; nothing that was saved before is lost",
  corrupt = "dockrun did not change it; stop every dockrun that uses it, then restore a backup, or move it away together "
    .. "with its -wal and -shm files to start with an empty state (containers keep running)",
  readonly = "make it writable for the user that runs dockrun, or name another directory with --state-dir",
}

---@class Database
---@field handle table       of dockrun.core.sqlite
---@field path string
---@field readonly boolean
---@field inside? any        the fiber whose transaction is open
---@field failure? table     the error that rolls that transaction back
local Database = {}
Database.__index = Database

--- An error about a database: what SQLite says, and what to do.
---@param kind string
---@param message string
---@param fields? table
---@return table err
function M.error(kind, message, fields)
  if advice[kind] then message = ("%s; %s"):format(message, advice[kind]) end
  return runtime.error(kind, message, fields)
end

local function explain(err) return M.error(err.kind, err.message, { code = err.code }) end

---@param path string
---@param opts? { readonly?: boolean }
---@return Database? db
---@return table? err
function M.open(path, opts)
  local readonly = opts ~= nil and opts.readonly == true
  local handle, err = sqlite.open(path, { readonly = readonly })
  if not handle then return nil, explain(err) end
  return setmetatable({ handle = handle, path = path, readonly = readonly }, Database)
end

-- Rolls back a transaction that has not been committed.
local function undo(self)
  if self.handle:in_transaction() then self.handle:exec "ROLLBACK" end
end

local function call(self, method, ...)
  if not self.inside then
    undo(self)  -- a signal or lack of memory may even interrupt the end of a transaction's scope
  elseif self.inside ~= (runtime.current() or self) then
    error("a transaction of another fiber waits; a transaction must not wait, because every other process waits for it", 3)
  end
  if self.failure then return nil, self.failure end
  local deadline, longest = runtime.now() + PATIENCE, SHORTEST
  while true do
    local value, err = self.handle[method](self.handle, ...)
    if not err then return value end
    if err.kind ~= "busy" or self.inside or runtime.now() > deadline then
      err = explain(err)
      if self.inside then self.failure = err end
      return nil, err
    end
    runtime.sleep(math.random() * longest)
    longest = math.min(2 * longest, LONGEST)
  end
end

--- The four calls of core/data/sqlite.c. They wait while another process has the lock; within a transaction they need not.
---@param sql string
---@return true? ok
---@return table? err  kind "busy", "full", "corrupt", "readonly", "constraint", "store"
function Database:exec(sql) return call(self, "exec", sql) end

---@param sql string
---@param ... any
---@return integer? changes
---@return table? err
function Database:run(sql, ...) return call(self, "run", sql, ...) end

---@param sql string
---@param ... any
---@return table<string, any>[]? rows
---@return table? err
function Database:rows(sql, ...) return call(self, "rows", sql, ...) end

---@param sql string
---@param ... any
---@return any value
---@return table? err
function Database:value(sql, ...) return call(self, "value", sql, ...) end

-- Ends a transaction when its scope ends, also by an error: a signal or lack of memory may raise one at any instruction,
-- even directly after the statement that begins the transaction.
local function scope(self)
  return setmetatable({}, { __close = function()
    self.inside, self.failure = nil, nil
    undo(self)
  end })
end

local function nested_scope(self)
  return setmetatable({ open = false }, { __close = function(this)
    if this.open then self.handle:exec "ROLLBACK TO nested; RELEASE nested" end
  end })
end

--- Runs fn in a transaction. It is rolled back if fn raises, if fn returns nil and an error, or if any call in it failed.
--- fn must not wait: until it returns, no other process can write. Within another transaction it is a part of that. On a
--- read-only connection everything that fn reads is from one moment.
---@param fn fun(): ...
---@return any ...  what fn returns, true if that is nothing; nil, err if it was rolled back
function Database:transaction(fn)
  local nested = self.inside ~= nil
  local this <close> = (nested and nested_scope or scope)(self)
  local ok, err = self:exec(nested and "SAVEPOINT nested" or self.readonly and "BEGIN" or "BEGIN IMMEDIATE")
  if not ok then return nil, err end
  if nested then
    this.open = true
  else
    self.inside = runtime.current() or self
  end
  local results = table.pack(fn())
  if results[1] == nil and results[2] ~= nil then return nil, results[2] end
  ok, err = self:exec(nested and "RELEASE nested" or "COMMIT")
  if not ok then return nil, err end
  if nested then this.open = false end
  if results.n == 0 then return true end
  return table.unpack(results, 1, results.n)
end

--- May be called twice.
function Database:close() self.handle:close() end

return M
