--- Durations as Go writes them ("1m30s", "300ms"), or a number of seconds. Public as dockrun.duration.

local M = {}

-- Nanoseconds in a unit: https://pkg.go.dev/time#ParseDuration
local units = { ns = 1, us = 1e3, ["µs"] = 1e3, ["μs"] = 1e3, ms = 1e6, s = 1e9, m = 60e9, h = 3600e9 }

local LONGEST = 2 ^ 63 / 1e9  -- Go's: an int64 of nanoseconds

local WHAT = "must be a duration such as '1m30s' or a number of seconds"

local function whole_if_so(seconds) return math.tointeger(seconds) or seconds end

--- Reads a duration.
---@param value string|number  "1h", "1m30s", "0.5s", "90", 90
---@return number? seconds     an integer if it is whole
---@return string? why
function M.parse(value)
  local seconds = tonumber(value)
  if not seconds and type(value) == "string" then
    local at, total = 1, 0
    while at <= #value do
      local number, unit, after = value:match("^(%d*%.?%d*)([a-zµμ]+)()", at)
      if not number or not tonumber(number) or not units[unit] then return nil, ("%s, got '%s'"):format(WHAT, value) end
      total, at = total + tonumber(number) * units[unit], after
    end
    seconds = at > 1 and total / 1e9 or nil
  end
  if not seconds then return nil, type(value) == "string" and ("%s, got '%s'"):format(WHAT, value) or WHAT end
  if not (seconds >= 0 and seconds <= LONGEST) then
    return nil, ("must be at least 0 and at most 292 years, got %s"):format(value)
  end
  return whole_if_so(seconds)
end

return M
