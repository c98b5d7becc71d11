--- Reads numbers as HCL 1 writes them: 5, -5, 0.5, 1e3, 0x1f, and 017 which is octal.

local json = require "dockrun.core.json"
local lpeg = require "lpeg"

local C, Cc, Cp, P, R, S = lpeg.C, lpeg.Cc, lpeg.Cp, lpeg.P, lpeg.R, lpeg.S

local M = {}

local digit = R "09"
local word = digit + R("az", "AZ") + S "_." + R "\x80\xff"
local exponent = S "eE" * S "+-" ^ -1 * digit ^ 1
local decimal = (digit ^ 1 * (P "." * digit ^ 0) ^ -1 + P "." * digit ^ 1) * exponent ^ -1

-- Where a base is given, the digits of a whole number in it.
local number = C(P "-" ^ -1) * (
  P "0" * S "xX" * C(R("09", "af", "AF") ^ 1) * -word * Cc(16)
  + P "0" * C(R "07" ^ 1) * -word * Cc(8)
  + P "0" * digit ^ 1 * -word * Cc(false) * Cc(8)
  + C(decimal) * -word * Cc(10)) * Cp()

local run = P "-" ^ -1 * (S "eE" * S "+-" + word) ^ 0 * Cp()

-- The most digits after leading zeros that are sure to fit into 63 bits.
local fits = { [8] = 21, [16] = 15 }

local function value_of(digits, base)
  local short = digits:match "^0*(.-)$"
  return #short <= fits[base] and tonumber(digits, base) or nil
end

--- Reads the number that begins at a byte.
---@param text string
---@param from integer
---@return (number|string)? value  an integer if it is whole; its text if Lua has other digits
---@return integer? after
---@return string? why      what is wrong with it
function M.read(text, from)
  local sign, digits, base, after = number:match(text, from)
  local shown = text:sub(from, math.min(run:match(text, from) - 1, from + 39))
  if not sign then
    return nil, nil, ("found '%s', expected a number such as 10, -1 or 0.5; text must be in double quotes"):format(shown)
  end
  if not digits then return nil, nil, ("found '%s', expected an octal number, as it begins with 0"):format(shown) end
  local value
  if base == 10 then
    value = math.abs(tonumber(digits)) < math.huge and json.number(sign .. digits) or nil
  else
    value = value_of(digits, base)
    if value and sign == "-" then value = -value end
  end
  if not value then return nil, nil, ("the number '%s' is too large"):format(shown) end
  return type(value) == "number" and math.tointeger(value) or value, after
end

return M
