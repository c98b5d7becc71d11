--- The checks of a task's values once more, when the names in them are filled in: until then, what holds a name is taken
--- as it is.

local schema = require "dockrun.job.schema"
local tree = require "dockrun.job.tree"
local tables = require "dockrun.util.tables"

local M = {}

local each

local function check(row, value, path, found)
  if type(value) ~= "table" then
    local why = row.check and row.check(value)
    if why then found(path, why) end
  elseif row.rows and tree.is_list(value) then
    for i, item in ipairs(value) do each(row.rows, item, ("%s[%d]"):format(path, i), found) end
  elseif row.rows then
    each(row.rows, value, path, found)
  elseif row.check then
    for _, key in ipairs(tables.keys(value)) do
      local why = row.check(value[key])
      if why then found((type(key) == "number" and "%s[%d]" or "%s.%s"):format(path, key), why) end
    end
  end
end

function each(rows, block, path, found)
  for _, row in ipairs(rows) do
    local value = block[row.name]
    if value ~= nil and not row.unused then check(row, value, path .. "." .. (row.also or row.name), found) end
  end
end

--- Tells everything that is wrong.
---@param task table  normalised, filled in
---@param path string  its key path
---@param found fun(path: string, why: string)
function M.task(task, path, found) each(schema.task, task, path, found) end

return M
