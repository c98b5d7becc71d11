--- Validators for the `check` of a row: a function of a value that types.lua has converted. It returns the problem, or nothing.
--- `range(1)(0)` -> "must be at least 1, got 0". A text with `${…}` is valid until revalidate.lua checks it again.

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

local function is_ipv4(text)
  local parts = { text:match "^(%d+)%.(%d+)%.(%d+)%.(%d+)$" }
  for _, part in ipairs(parts) do
    if #part > 3 or tonumber(part) > 255 then return false end
  end
  return #parts == 4
end

-- RFC 4291, section 2.2: eight groups, of which "::" replaces one or more; the last two may be written as IPv4.
local function is_ipv6(text)
  local short = text:find("::", 1, true)
  if text:find ":::" or short and text:find("::", short + 2, true) then return false end
  if text:find "^:[^:]" or text:find "[^:]:$" then return false end
  local last, groups = text:match "^.*:(.*)$" or text, 0
  if is_ipv4(last) then text, groups = text:sub(1, -#last - 1), 2 end
  for group in text:gmatch "[^:]+" do
    if not group:find "^%x%x?%x?%x?$" then return false end
    groups = groups + 1
  end
  return groups == 8 and not short or groups < 8 and short ~= nil
end

local families = { [4] = is_ipv4, [6] = is_ipv6 }

--- An IP address.
---@param family? 4|6  left out: either
---@return Check
function M.address(family)
  return function(value)
    if M.is_open(value) then return nil end
    for _, number in ipairs { 4, 6 } do
      if (family or number) == number and families[number](value) then return nil end
    end
    return ("must be an IP%s address, got %s"):format(family and "v" .. family or "", types.show(value))
  end
end

M.absolute_path = M.matches("an absolute path", "/[^%z]*")

return M
