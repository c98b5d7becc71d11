-- dockrun.core.sqlite for a simulated process: the real module, on files in memory. The process can be killed before and
-- after every statement; a transaction that was open then is rolled back, as SQLite does.
--
-- Opening a connection and preparing its statements takes longer than using it: a closed connection is kept for the next
-- process that opens the file.
local real = require "dockrun.core.sqlite"

local M = {}

local idle = {}  -- closed connections, by path

local Database = {}
Database.__index = Database

-- The simulation does not check databases for damage: it would take longer than all else.
local function ask(handle, method, sql, ...)
  if sql:find("PRAGMA integrity_check", 1, true) then return "ok" end
  return handle[method](handle, sql, ...)
end

for _, method in ipairs { "exec", "run", "rows", "value" } do
  Database[method] = function(self, sql, ...)
    if not self.handle then error("the database is closed", 2) end
    self.process:point()
    local value, err = ask(self.handle, method, sql, ...)
    self.process:point()
    return value, err
  end
end

function Database:in_transaction() return self.handle ~= nil and self.handle:in_transaction() end

function Database:close()
  if not self.handle then return end
  if self:in_transaction() then self.handle:exec "ROLLBACK" end
  table.insert(idle[self.key], self.handle)
  self.handle = nil
end

---@param process SimProcess
---@return table sqlite
function M.new(process)
  return {
    open = function(path, options)
      local key = (options and options.readonly and "r " or "w ") .. path
      idle[key] = idle[key] or {}
      local handle, err = table.remove(idle[key]), nil
      if not handle then handle, err = real.open(path, options) end
      if not handle then return nil, err end
      local database = setmetatable({ process = process, handle = handle, key = key }, Database)
      table.insert(process.databases, database)
      return database
    end,
  }
end

--- Deletes all rows of a database but its identity.
---@param path string
function M.empty(path)
  local db <close> = assert(real.open(path))
  local tables = { "BEGIN IMMEDIATE" }
  for _, row in ipairs(assert(db:rows "SELECT name FROM sqlite_schema WHERE type = 'table' AND name != 'identity'")) do
    tables[#tables + 1] = ("DELETE FROM %s"):format(row.name)
  end
  tables[#tables + 1] = "COMMIT"
  assert(db:exec(table.concat(tables, ";")))
end

--- Closes the connections of all worlds.
function M.finish()
  for _, list in pairs(idle) do
    for _, handle in ipairs(list) do handle:close() end
  end
  idle = {}
end

return M
