--- Validators for the `check` of a row: a function of a value that types.lua has converted. It returns the problem, or nothing.
--- `range(1)(0)` -> "must be at least 1, got 0". A text with `${…}` is valid until revalidate.lua checks it again.

local ports = require "dockrun.core.ports"
local types = require "dockrun.job.types"

local M = {}

---@alias Check fun(value: any): string?

--- Whether a text has names that are filled in later. Until then it cannot be validated.
---@param value string
---@return boolean
function M.is_open(value) return value:find("${", 1, true) ~= nil or value:find "%$attr%." ~= nil end

--- A number within bounds, both included.
---@param least number
---@param most? number
---@return Check
function M.range(least, most)
  return function(value)
    if value < least then return ("must be at least %d, got %s"):format(least, value) end
    if most and value > most then return ("must be at most %d, got %s"):format(most, value) end
  end
end

---@type Check
function M.not_blank(value)
  if not value:find "%S" then return "must not be empty" end
end

--- A text that one of some Lua patterns matches as a whole.
---@param what string       for the message: "must be …"
---@param ... string        patterns
---@return Check
function M.matches(what, ...)
  local patterns = { ... }
  return function(value)
    if M.is_open(value) then return nil end
    for _, pattern in ipairs(patterns) do
      if value:find("^" .. pattern .. "$") then return nil end
    end
    return ("must be %s, got %s"):format(what, types.show(value))
  end
end

--- A text that is one of a few.
---@param ... string
---@return Check
function M.one_of(...)
  local known, list = {}, table.concat({ ... }, ", ")
  for _, one in ipairs { ... } do known[one] = true end
  return function(value)
    if not known[value] and not M.is_open(value) then return ("must be one of %s, got %s"):format(list, types.show(value)) end
  end
end

--- An IP address.
---@param family? 4|6  left out: either
---@return Check
function M.address(family)
  return function(value)
    if M.is_open(value) then return nil end
    local spelling, found = nil, nil
    if not value:find "%z" then spelling, found = ports.address(value) end
    if spelling and (family or found) == found then return nil end
    return ("must be an IP%s address, got %s"):format(family and "v" .. family or "", types.show(value))
  end
end

M.absolute_path = M.matches("an absolute path", "/[^%z]*")

return M
