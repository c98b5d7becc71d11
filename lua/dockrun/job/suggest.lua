--- Suggests a known word for an unknown one, for messages: "imgae" -> "; did you mean 'image'?".

local M = {}

-- Optimal string alignment distance: insertions, deletions, substitutions, and swaps of neighbours: the usual
-- typing errors. See https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance
local function distance(a, b)
  local before, above = {}, {}
  for j = 0, #b do above[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, above = above, row
  end
  return above[#b]
end

local LONGEST = 64  -- no known word is longer; the distance costs the product of both lengths

--- The nearest known word, if it is near enough to be meant.
---@param word string
---@param known string[]
---@return string?
function M.word(word, known)
  if #word > LONGEST then return nil end
  local best, least = nil, math.max(1, #word // 2) + 1
  for _, candidate in ipairs(known) do
    local d = math.abs(#word - #candidate) < least and distance(word:lower(), candidate:lower()) or least
    if d < least then best, least = candidate, d end
  end
  return best
end

--- The end of a message about an unknown word: "; did you mean 'image'?", or the list of known words.
---@param word string
---@param known string[]
---@param more? string[]  further words to suggest, too many to list
---@return string
function M.hint(word, known, more)
  local best = M.word(word, table.move(more or {}, 1, #(more or {}), #known + 1, { table.unpack(known) }))
  if best then return ("; did you mean '%s'?"):format(best) end
  if #known == 0 then return "" end
  return "; known: " .. table.concat(known, ", ")
end

return M
