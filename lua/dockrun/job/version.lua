--- Versions and conditions on them: "1.2.3-rc1", ">= 1.2, < 2", "~> 1.2". The operator `version` follows
--- hashicorp/go-version, as Nomad does; `semver` follows https://semver.org/spec/v2.0.0.html, section 11.
local M = {}

---@class Version
---@field numbers integer[]
---@field pre? string[]   identifiers of the pre-release

--- Parses a version. A leading "v", and everything after a "+", are ignored.
---@param text string
---@return Version? version
function M.parse(text)
  local numbers, rest = text:match "^%s*v?(%d[%d.]*)(%S*)%s*$"
  if not numbers or numbers:find "%.%." or numbers:find "%.$" then return nil end
  local version = { numbers = {} }
  for number in numbers:gmatch "%d+" do
    local value = math.tointeger(tonumber(number))
    if not value then return nil end
    table.insert(version.numbers, value)
  end
  rest = rest:gsub("%+[%w.~-]*$", "")
  if rest == "" then return version end
  local pre = rest:match "^%-([%w.~-]+)$" or rest:match "^([%a~][%w.~-]*)$"
  if not pre then return nil end
  version.pre = {}
  for part in pre:gmatch "[^.]+" do table.insert(version.pre, part) end
  return version
end

local function order(a, b) return a < b and -1 or a > b and 1 or 0 end

-- Numbers come before words, and a shorter list before a longer one with the same start.
local function compare_pre(a, b)
  if not a or not b then return a and -1 or b and 1 or 0 end  -- a pre-release is before its release
  for i = 1, math.max(#a, #b) do
    local x, y = a[i], b[i]
    if not x or not y then return x and 1 or -1 end
    local m, n = math.tointeger(tonumber(x)), math.tointeger(tonumber(y))
    local way
    if m and n then way = order(m, n)
    elseif m or n then way = m and -1 or 1
    else way = order(x, y) end
    if way ~= 0 then return way end
  end
  return 0
end

local function compare_numbers(a, b)
  for i = 1, math.max(#a.numbers, #b.numbers) do
    local way = order(a.numbers[i] or 0, b.numbers[i] or 0)
    if way ~= 0 then return way end
  end
  return 0
end

---@param a Version
---@param b Version
---@return integer  below 0, 0 or above 0
function M.compare(a, b)
  local way = compare_numbers(a, b)
  return way ~= 0 and way or compare_pre(a.pre, b.pre)
end

-- "~> 1.2.3": at least 1.2.3, and equal in all numbers but the last. A condition with a pre-release needs a pre-release.
local function pessimistic(version, least)
  if M.compare(version, least) < 0 or least.pre and not version.pre then return false end
  for i = 1, #least.numbers - 1 do
    if (version.numbers[i] or 0) ~= least.numbers[i] then return false end
  end
  return true
end

local holds = {
  ["="] = function(a, b) return M.compare(a, b) == 0 end,
  ["!="] = function(a, b) return M.compare(a, b) ~= 0 end,
  [">"] = function(a, b) return M.compare(a, b) > 0 end,
  [">="] = function(a, b) return M.compare(a, b) >= 0 end,
  ["<"] = function(a, b) return M.compare(a, b) < 0 end,
  ["<="] = function(a, b) return M.compare(a, b) <= 0 end,
  ["~>"] = pessimistic,
}

--- Parses conditions, separated by commas, that must all hold: ">= 1.2, < 2".
---@param text string
---@param semver? boolean  semver has no "~>"
---@return { operator: string, version: Version }[]? conditions
---@return string? why not
function M.conditions(text, semver)
  local conditions = {}
  for part in (text .. ","):gmatch "%s*(.-)%s*," do
    local operator, rest = part:match "^([=!<>~]*)%s*(.*)$"
    operator = operator == "" and "=" or operator
    local version = M.parse(rest)
    if not holds[operator] or semver and operator == "~>" then
      return nil, ("'%s' has no known operator (=, !=, >, >=, <, <=%s)"):format(part, semver and "" or ", ~>")
    end
    if not version then return nil, ("'%s' is not a version"):format(rest) end
    conditions[#conditions + 1] = { operator = operator, version = version }
  end
  return conditions
end

-- go-version: a pre-release meets an order condition only if the condition has a pre-release of the same release.
local function may_compare(version, condition)
  if condition.operator == "=" or condition.operator == "!=" or not version.pre then return true end
  return condition.version.pre ~= nil and compare_numbers(version, condition.version) == 0
end

--- Whether a version meets all conditions.
---@param version Version
---@param conditions { operator: string, version: Version }[]
---@param semver? boolean
---@return boolean
function M.meets(version, conditions, semver)
  for _, condition in ipairs(conditions) do
    if not semver and not may_compare(version, condition) then return false end
    if not holds[condition.operator](version, condition.version) then return false end
  end
  return true
end

return M
