--- Converts values that job files for Nomad 0.1 to 0.4 wrote in another way, for the `older` of a row:
--- args = "-c 'a b'" -> { "-c", "a b" }. Any other value is returned unchanged.

local lpeg = require "lpeg"

local M = {}

local Cs, Ct, P, S = lpeg.Cs, lpeg.Ct, lpeg.P, lpeg.S

-- Words as a shell splits them (POSIX.1-2017, Shell Command Language, section 2.2), without any expansion.
local escaped = P "\\" / "" * 1
local quoted = P "'" / "" * (1 - P "'") ^ 0 * (P "'" / "") + P '"' / "" * (P "\\" / "" * S '"\\' + (1 - P '"')) ^ 0 * (P '"' / "")
local word = Cs((escaped + quoted + (1 - S " \t\n'\"\\")) ^ 1)
local words = Ct(S " \t\n" ^ 0 * (word * S " \t\n" ^ 0) ^ 0) * -1

--- The arguments of a command in one text.
---@param value any
---@return any
function M.words(value)
  return type(value) == "string" and words:match(value) or value
end

--- A list of one.
---@param value any
---@return any
function M.only(value)
  if type(value) == "table" and #value == 1 and next(value, 1) == nil then return value[1] end
  return value
end

return M
