--- Small work with tables.

local M = {}

--- A copy of a value with all tables in it. Functions are kept.
---@param value any
---@return any
function M.copy(value)
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in next, value do copy[key] = M.copy(item) end
  return copy
end

--- A copy of a value with all tables in it, without functions.
---@param value any
---@return any
function M.copy_data(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in next, value do copy[key] = M.copy_data(item) end
  return copy
end

--- One table of several: { a = 1, b = 1 }, { b = 2 } -> { a = 1, b = 2 }.
---@param ... table?  a later one wins; nil counts as empty
---@return table
function M.merge(...)
  local merged = {}
  for i = 1, select("#", ...) do
    for key, value in next, (select(i, ...)) or {} do merged[key] = value end
  end
  return merged
end

--- A table's keys in a fixed order: numbers first.
---@param value table
---@return (string|number)[]
function M.keys(value)
  local keys, numbers, n = {}, 0, 0
  for key in next, value do
    n = n + 1
    keys[n] = key
    if type(key) == "number" then numbers = numbers + 1 end
  end
  if numbers == 0 or numbers == n then
    table.sort(keys)  -- in C: nearly all keys are text
  else
    table.sort(keys, function(a, b)
      if type(a) == type(b) then return a < b end
      return type(a) == "number"
    end)
  end
  return keys
end

--- { "a", "b" } -> { a = true, b = true }
---@param list any[]
---@return table<any, true>
function M.set(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

---@param list any[]
---@param value any
---@return boolean
function M.contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

return M
