--- Records and rows: a record (a Lua table) is put as one row, and a row is read as a record.
local json = require "dockrun.core.json"
local owner = require "dockrun.store.owner"

local M = {}

-- Columns whose type in SQLite differs from the record's.
local JSON = { "definition", "ports", "detail", "meta", "data", "source" }
local BOOLEAN = { "oom" }

local encode = {}
for _, name in ipairs(JSON) do encode[name] = json.encode end

---@class Shape
---@field columns string[]
---@field known table<string, true>
---@field put string  the statement

--- A table whose rows are replaced whole: a field that a record leaves out is removed.
---@param name string
---@param keys string[]       columns that name a row
---@param columns string[]    the others
---@param read_only? string[] fields that reading gives and putting ignores
---@return Shape
function M.shape(name, keys, columns, read_only)
  local all, updates, known = table.move(columns, 1, #columns, #keys + 1, { table.unpack(keys) }), {}, {}
  for i, column in ipairs(columns) do updates[i] = ('"%s" = excluded."%s"'):format(column, column) end
  for _, list in ipairs { all, read_only or {} } do
    for _, column in ipairs(list) do known[column] = true end
  end
  return {
    columns = all, known = known,
    put = ('INSERT INTO %s ("%s") VALUES (%s) ON CONFLICT ("%s") DO UPDATE SET %s'):format(name, table.concat(all, '", "'),
      ("?, "):rep(#all - 1) .. "?", table.concat(keys, '", "'), table.concat(updates, ", ")),
  }
end

--- Puts a record. It replaces the one with the same keys.
---@param db Database
---@param shape Shape
---@param record table<string, any>
---@return true? ok
---@return table? err
function M.put(db, shape, record)
  for key in pairs(record) do
    if not shape.known[key] then error(("the state has no column for '%s'"):format(key), 2) end
  end
  local values = {}
  for i, column in ipairs(shape.columns) do
    local value = record[column]
    if value ~= nil and encode[column] then value = encode[column](value) end
    values[i] = value
  end
  local changes, err = db:run(shape.put, table.unpack(values, 1, #shape.columns))
  return changes and true, err
end

--- The records that a query gives.
---@param db Database
---@param sql string
---@param ... any
---@return table<string, any>[]? records
---@return table? err
function M.list(db, sql, ...)
  local rows, err = db:rows(sql, ...)
  if not rows then return nil, err end
  for _, row in ipairs(rows) do
    for _, name in ipairs(JSON) do
      if row[name] then row[name] = json.decode(row[name]) end
    end
    for _, name in ipairs(BOOLEAN) do
      if row[name] then row[name] = row[name] ~= 0 end
    end
    if row.owner then row.owner = owner.parse(row.owner) end
  end
  return rows
end

--- The first record that a query gives; nil if it gives none.
---@param db Database
---@param sql string
---@param ... any
---@return table<string, any>? record
---@return table? err
function M.one(db, sql, ...)
  local records, err = M.list(db, sql, ...)
  return records and records[1], err
end

--- Whether a statement removed or changed something.
---@param db Database
---@param sql string
---@param ... any
---@return boolean? affected
---@return table? err
function M.affect(db, sql, ...)
  local changes, err = db:run(sql, ...)
  if not changes then return nil, err end
  return changes > 0
end

return M
