--- Moments as text: RFC 3339.

local M = {}

-- Days since 1970 of a date of the Gregorian calendar, by counting years from March on, so that a leap day is the last.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

--- Seconds since 1970; what is below a second is left out.
---@param text string  such as 2006-01-02T15:04:05.999999999Z, or with an offset such as +01:00
---@return integer? seconds  nil where it is no such text
function M.seconds(text)
  local year, month, day, hour, minute, second, rest = text:match "^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$"
  if not year then return nil end
  local sign, hours, minutes = rest:match "([+-])(%d%d):(%d%d)$"
  local offset = sign and (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60) or 0
  local seconds = days(year // 1, month // 1, day // 1) * 86400 + hour * 3600 + minute * 60 + second - offset
  return math.tointeger(seconds)
end

return M
