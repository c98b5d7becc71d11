-- dockrun.core.sqlite for a simulated process: the real one, on files in memory, with a chance to be killed before and
-- after every statement. A transaction that was open then is undone, as SQLite does it.
local real = require "dockrun.core.sqlite"

local M = {}

local Database = {}
Database.__index = Database

-- Whether a database is damaged is no matter of the simulation, and takes longer than all else.
local function look(handle, method, sql, ...)
  if sql:find "^PRAGMA integrity_check" then return "ok" end
  return handle[method](handle, sql, ...)
end

for _, method in ipairs { "exec", "run", "rows", "value" } do
  Database[method] = function(self, ...)
    self.process:point()
    local value, err = look(self.handle, method, ...)
    self.process:point()
    return value, err
  end
end

function Database:close() self.handle:close() end

---@param process SimProcess
---@return table sqlite
function M.new(process)
  return {
    open = function(path, options)
      local handle, err = real.open(path, options)
      if not handle then return nil, err end
      local database = setmetatable({ process = process, handle = handle }, Database)
      table.insert(process.databases, database)
      return database
    end,
  }
end

return M
