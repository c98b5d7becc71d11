--- The wall clock, and moments as text (RFC 3339, UTC). For time-outs there is runtime.now(), which never steps back.
local runtime = require "dockrun.core.runtime"

local M = {}

--- Seconds since 1970.
---@return number
function M.now()
  local seconds, nanoseconds = runtime.clock()
  return seconds + nanoseconds / 1e9
end

--- 1700000000, 5 -> "2023-11-14T22:13:20.000000005Z"
---@param seconds? integer      since 1970; now by default
---@param nanoseconds? integer  of the second
---@return string
function M.format(seconds, nanoseconds)
  if not seconds then seconds, nanoseconds = runtime.clock() end
  return ("%s.%09dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", seconds), nanoseconds)
end

-- Days since 1970 of a date of the Gregorian calendar. The years are counted from March on, so that a leap day is the last.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719469
end

--- "2023-11-14T23:13:20.5+01:00" -> 1700000000. The fraction of a second is left out.
---@param text string
---@return integer? seconds  since 1970; nil if it is not such a text
function M.seconds(text)
  local year, month, day, hour, minute, second, rest = text:match "^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$"
  if not year then return nil end
  local sign, hours, minutes = rest:match "([+-])(%d%d):(%d%d)$"
  local offset = sign and (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60) or 0
  local seconds = days(year // 1, month // 1, day // 1) * 86400 + hour * 3600 + minute * 60 + second - offset
  return math.tointeger(seconds)
end

return M
