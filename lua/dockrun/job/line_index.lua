--- Line and column of the bytes of a text: fast in any order of questions, and with lines of any length.

local M = {}

---@class PositionMark     a byte that begins a character, and its place
---@field at integer
---@field line integer
---@field column integer   in characters
---@field begin integer    the first byte of its line

---@class Positions
---@field text string
---@field marks PositionMark[]  one for each STEP bytes, up to the last place that was asked for
local Positions = {}
Positions.__index = Positions

---@param text string  UTF-8, with "\n" at the end of lines
---@return Positions
function M.new(text) return setmetatable({ text = text, marks = { { at = 1, line = 1, column = 1, begin = 1 } } }, Positions) end

---@param text string
---@param mark PositionMark
---@param at integer  a later byte
---@return PositionMark
local function advance(text, mark, at)
  local line, column, begin, from = mark.line, mark.column, mark.begin, mark.at
  local newline = text:find("\n", from, true)
  while newline and newline < at do
    line, column, begin, from = line + 1, 1, newline + 1, newline + 1
    newline = text:find("\n", from, true)
  end
  return { at = at, line = line, column = column + (utf8.len(text, from, at - 1) or at - from), begin = begin }
end

local STEP = 1024  -- bytes from mark to mark

--- Where a byte is.
---@param offset integer
---@return integer line
---@return integer column  in characters
---@return integer begin   the first byte of its line
function Positions:of(offset)
  local marks, wanted = self.marks, (offset - 1) // STEP + 1
  while #marks < wanted do
    local at = #marks * STEP + 1
    while (self.text:byte(at) or 0) & 0xc0 == 0x80 do at = at - 1 end  -- in the middle of a character
    marks[#marks + 1] = advance(self.text, marks[#marks], at)
  end
  local found = advance(self.text, marks[wanted], offset)
  return found.line, found.column, found.begin
end

return M
