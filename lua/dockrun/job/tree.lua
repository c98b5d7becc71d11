--- The raw tree, which is the output of every reader: plain tables, lists and scalars in the shape of HCL. A block may be a
--- table, or a list with one table in it; `named` reads all ways to write named blocks.

local tables = require "dockrun.util.tables"

local M = {}

--- How deep the tables of a file may be nested. A job needs about 12 levels. Recursive functions rely on this limit.
M.DEEPEST = 40

local function measure(value, depth, found)
  if depth > M.DEEPEST then return "" end
  for key, item in next, value do
    if type(key) == "string" then found.keys = found.keys + 1 end
    if type(item) == "table" then
      local rest = measure(item, depth + 1, found)
      if rest then return rest == "" and tostring(key) or key .. "." .. rest end
    end
  end
end

--- How deep and how large a tree is.
---@param value table
---@return string? path     of the first value that is nested too deeply
---@return integer keys     number of keys that are text; not valid if the tree is too deep
function M.measure(value)
  local found = { keys = 0 }
  return measure(value, 0, found), found.keys
end

--- Whether a value is a list that is not empty. An empty table may be a list or a block: JSON does not tell.
---@param value any
---@return boolean
function M.is_list(value)
  if type(value) ~= "table" or #value == 0 then return false end
  local count = 0
  for _ in next, value do count = count + 1 end
  return count == #value
end

-- Whether a table is one block, which has a scalar under a known key; a table of labels has only blocks.
local function is_block(value, known)
  for key, item in next, value do
    if known[key] and type(item) ~= "table" then return true end
  end
  return false
end

--- Calls `found(label, body, holder, key)` for every named block of a value: { redis = {…} }, { redis = { {…}, {…} } },
--- { { redis = {…} }, { web = {…} } }, { name = "redis", … } or a list of those.
---@param value any
---@param key string  the key of a block's label: "name" or "label"
---@param known table<string, true>  the keys of such a block
---@param found fun(label: string|number|nil, body: any, holder: table?, key: string|number|nil)  body is holder[key]
---@param holder? table
---@param at? string|number
function M.named(value, key, known, found, holder, at)
  if type(value) ~= "table" then
    found(nil, value, holder, at)
  elseif M.is_list(value) then
    for i, item in ipairs(value) do M.named(item, key, known, found, value, i) end
  elseif next(value) ~= nil and is_block(value, known) then
    found(type(value[key]) ~= "table" and value[key] or nil, value, holder, at)
  else
    for _, label in ipairs(tables.keys(value)) do
      local body = value[label]
      if M.is_list(body) then
        for _, one in ipairs(body) do found(label, one, value, label) end
      else
        found(label, body, value, label)
      end
    end
  end
end

--- A copy of a value that no schema describes, in a form that every format has: without functions; its keys are text, or
--- those of a list.
---@param value any
---@return any
function M.data(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "table" then return value end
  local copy, list = setmetatable({}, getmetatable(value)), M.is_list(value)
  for key, item in next, value do copy[list and key or tostring(key)] = M.data(item) end
  return copy
end

return M
