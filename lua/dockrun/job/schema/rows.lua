--- Helpers to write the rows of a schema. See schema/init.lua for what a row holds.

local M = {}

--- Rows for keys of Nomad that decide about a cluster, or about parts of Nomad that a single host does not have.
---@param keys string  "region priority"
---@return SchemaRow[]
function M.unused(keys)
  local rows = {}
  for key in keys:gmatch "%S+" do
    rows[#rows + 1] = { name = key, type = "any", unused = true, doc = "Nomad's; kept, not used on a single host" }
  end
  return rows
end

--- Lists of rows as one.
---@param ... SchemaRow[]
---@return SchemaRow[]
function M.join(...)
  local rows = {}
  for _, list in ipairs { ... } do table.move(list, 1, #list, #rows + 1, rows) end
  return rows
end

return M
