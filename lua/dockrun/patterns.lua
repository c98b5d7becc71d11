--- Pattern matching (Lua 5.4 manual, §6.4.1) whose every step is an instruction of Lua. The library's own backtracks
--- within one call of C, for years if the pattern is bad enough, and no limit reaches it there. Here it is used where it
--- cannot take long.
local runtime = require "dockrun.core.runtime"

local M = {}

local byte, char, sub, native = string.byte, string.char, string.sub, {
  find = string.find, match = string.match, gmatch = string.gmatch, gsub = string.gsub,
}

local ESCAPE, POSITION, OPEN = byte "%", {}, {}
local STEPS, BYTES = 1000000, 1000000000  -- that the library may match, and compare

local function is_text(value) return type(value) == "string" or type(value) == "number" end

local function is_literal(pattern) return not native.find(pattern, "[]^$*+?.([%%-]") end

-- Whether the library's own matching may take many steps: each quantifier may end anywhere. What is wrong is left to the
-- library too, which says so best.
local function takes_long(text, pattern, _, plain)
  if not is_text(text) or not is_text(pattern) then return false end
  if plain == true or is_literal(pattern) then return #tostring(text) * #tostring(pattern) > BYTES end
  local _, many = native.gsub(pattern, "[-*+?%%]", "")
  return (#tostring(text) + 1) ^ (many + 1) * #tostring(pattern) > STEPS
end

-- ---- a pattern as a list of items --------------------------------------------------------------

-- The place after the single-character item at i.
local function item_end(pattern, i)
  local first = byte(pattern, i)
  if first == ESCAPE then return i + 2 end
  if first ~= byte "[" then return i + 1 end
  i = byte(pattern, i + 1) == byte "^" and i + 2 or i + 1
  repeat  -- a `]` at once is a member
    if i > #pattern then error("malformed pattern (missing ']')", 0) end
    i = byte(pattern, i) == ESCAPE and i + 2 or i + 1
  until byte(pattern, i) == byte "]"
  return i + 1
end

-- The bytes that an item stands for: the library knows its classes.
local function members(item, sets)
  if not sets[item] then
    local set = {}
    for code = 0, 255 do set[code] = native.find(char(code), "^" .. item) ~= nil end
    sets[item] = set
  end
  return sets[item]
end

local quantifiers = { [byte "*"] = "*", [byte "+"] = "+", [byte "-"] = "-", [byte "?"] = "?" }

-- What begins with % and is no class; gives the item and the place after it.
local function special(pattern, i, sets)
  local what = sub(pattern, i + 1, i + 1)
  if what == "" then error("malformed pattern (ends with '%')", 0) end
  if what == "b" then
    if i + 3 > #pattern then error("malformed pattern (missing arguments to '%b')", 0) end
    return { kind = "balance", from = byte(pattern, i + 2), to = byte(pattern, i + 3) }, i + 4
  elseif what == "f" then
    if sub(pattern, i + 2, i + 2) ~= "[" then error("missing '[' after '%f' in pattern", 0) end
    local stop = item_end(pattern, i + 2)
    return { kind = "frontier", set = members(sub(pattern, i + 2, stop - 1), sets) }, stop
  elseif native.find(what, "%d") then
    return { kind = "back", index = tonumber(what) }, i + 2
  end
end

local function compile(pattern, i)
  local items, sets = {}, {}
  while i <= #pattern do
    local first = byte(pattern, i)
    local item
    if first == byte "(" then
      item, i = { kind = byte(pattern, i + 1) == byte ")" and "position" or "open" }, i + 1
      if item.kind == "position" then i = i + 1 end
    elseif first == byte ")" then
      item, i = { kind = "close" }, i + 1
    elseif first == byte "$" and i == #pattern then
      item, i = { kind = "end" }, i + 1
    else
      local after
      if first == ESCAPE then item, after = special(pattern, i, sets) end
      if not item then
        after = item_end(pattern, i)
        item = { kind = "one", set = members(sub(pattern, i, after - 1), sets) }
        local how = quantifiers[byte(pattern, after) or false]
        if how then item.kind, after = how, after + 1 end
      end
      i = after
    end
    items[#items + 1] = item
  end
  return items
end

-- ---- matching ----------------------------------------------------------------------------------

-- Each takes the state, the place in the text and the item's number; gives the place after the match, or nil.
local match_item = {}

local function match(state, at, number)
  local item = state.items[number]
  if not item then return at end
  return match_item[item.kind](state, at, number, item)
end

match_item["end"] = function(state, at) return at == #state.text + 1 and at or nil end

function match_item.one(state, at, number, item)
  if at <= #state.text and item.set[byte(state.text, at)] then return match(state, at + 1, number + 1) end
end

match_item["?"] = function(state, at, number, item)
  if at <= #state.text and item.set[byte(state.text, at)] then
    local stop = match(state, at + 1, number + 1)
    if stop then return stop end
  end
  return match(state, at, number + 1)
end

match_item["-"] = function(state, at, number, item)
  while true do
    local stop = match(state, at, number + 1)
    if stop then return stop end
    if at > #state.text or not item.set[byte(state.text, at)] then return nil end
    at = at + 1
  end
end

match_item["*"] = function(state, at, number, item)
  local last, least = at, item.kind == "+" and at + 1 or at
  while last <= #state.text and item.set[byte(state.text, last)] do last = last + 1 end
  for stop = last, least, -1 do
    local found = match(state, stop, number + 1)
    if found then return found end
  end
end
match_item["+"] = match_item["*"]

function match_item.frontier(state, at, number, item)
  local before, here = at > 1 and byte(state.text, at - 1) or 0, byte(state.text, at) or 0
  if not item.set[before] and item.set[here] then return match(state, at, number + 1) end
end

function match_item.balance(state, at, number, item)
  if byte(state.text, at) ~= item.from then return nil end
  local depth = 1
  for i = at + 1, #state.text do
    local code = byte(state.text, i)
    if code == item.to then
      depth = depth - 1
      if depth == 0 then return match(state, i + 1, number + 1) end
    elseif code == item.from then
      depth = depth + 1
    end
  end
end

function match_item.back(state, at, number, item)
  local capture = state.captures[item.index]
  if not capture or capture.stop == OPEN then
    error(("invalid capture index %%%d in pattern"):format(item.index), 0)
  end
  if capture.stop == POSITION then return nil end
  local text = sub(state.text, capture.start, capture.stop)
  if sub(state.text, at, at + #text - 1) == text then return match(state, at + #text, number + 1) end
end

-- A capture that the rest does not fit to is none.
function match_item.open(state, at, number, item)
  local captures = state.captures
  captures[#captures + 1] = { start = at, stop = item.kind == "position" and POSITION or OPEN }
  local stop = match(state, at, number + 1)
  if not stop then captures[#captures] = nil end
  return stop
end
match_item.position = match_item.open

function match_item.close(state, at, number)
  for i = #state.captures, 1, -1 do
    local capture = state.captures[i]
    if capture.stop == OPEN then
      capture.stop = at - 1
      local stop = match(state, at, number + 1)
      if not stop then capture.stop = OPEN end
      return stop
    end
  end
  error("invalid pattern capture", 0)
end

local function new_state(text, pattern, anchors)
  local anchored = anchors and byte(pattern, 1) == byte "^"
  return { text = text, items = compile(pattern, anchored and 2 or 1), anchored = anchored, captures = {} }
end

-- The first match at or after a place: where it begins, and where the text goes on.
local function search(state, at)
  for start = at, state.anchored and at or #state.text + 1 do
    state.captures = {}
    local stop = match(state, start, 1)
    if stop then return start, stop end
  end
end

local function value_of(state, capture)
  if capture.stop == OPEN then error("unfinished capture", 0) end
  if capture.stop == POSITION then return capture.start end
  return sub(state.text, capture.start, capture.stop)
end

-- What was captured, as results; all of the match where nothing is.
local function captured(state, start, stop)
  if #state.captures == 0 then return sub(state.text, start, stop - 1) end
  local values = {}
  for i, capture in ipairs(state.captures) do values[i] = value_of(state, capture) end
  return table.unpack(values)
end

-- ---- the functions -----------------------------------------------------------------------------

-- Where a search begins.
local function first_place(text, init)
  init = init and assert(math.tointeger(init), "number has no integer representation") or 1
  if init < 0 then init = #text + init + 1 end
  return init < 1 and 1 or init
end

function M.find(text, pattern, init, plain)
  text, pattern = tostring(text), tostring(pattern)
  if plain or is_literal(pattern) then pattern = native.gsub(pattern, "%W", "%%%0") end
  local place = first_place(text, init)
  if place > #text + 1 then return nil end
  local state = new_state(text, pattern, true)
  local start, stop = search(state, place)
  if not start then return nil end
  if #state.captures == 0 then return start, stop - 1 end
  return start, stop - 1, captured(state, start, stop)
end

function M.match(text, pattern, init)
  text, pattern = tostring(text), tostring(pattern)
  local place = first_place(text, init)
  if place > #text + 1 then return nil end
  local state = new_state(text, pattern, true)
  local start, stop = search(state, place)
  if not start then return nil end
  return captured(state, start, stop)
end

-- Each match, none of which is empty at the end of the one before it.
local function each(state, place)
  local last
  return function()
    while place <= #state.text + 1 do
      local start, stop = search(state, place)
      if not start then return nil end
      place = stop
      if stop ~= last then
        last = stop
        return start, stop
      end
      place = start + 1
      if state.anchored then return nil end
    end
  end
end

function M.gmatch(text, pattern, init)
  text = tostring(text)
  local state = new_state(text, tostring(pattern), false)
  local following = each(state, first_place(text, init))
  return function()
    local start, stop = following()
    if start then return captured(state, start, stop) end
  end
end

-- A replacement's text: %0 to %9 are what was captured.
local function fill_in(template, state, start, stop)
  local parts, i = {}, 1
  while i <= #template do
    local at = native.find(template, "%", i, true)
    parts[#parts + 1] = sub(template, i, (at or #template + 1) - 1)
    if not at then break end
    local what = sub(template, at + 1, at + 1)
    if what == "%" then
      parts[#parts + 1] = "%"
    elseif what == "0" or what == "1" and #state.captures == 0 then
      parts[#parts + 1] = sub(state.text, start, stop - 1)
    elseif what ~= "" and native.find(what, "%d") then
      local capture = state.captures[tonumber(what)]
      if not capture then error(("invalid capture index %%%s in replacement string"):format(what), 0) end
      parts[#parts + 1] = value_of(state, capture)
    else
      error("invalid use of '%' in replacement string", 0)
    end
    i = at + 2
  end
  return table.concat(parts)
end

function M.gsub(text, pattern, replacement, most)
  local kind = type(replacement)
  if not is_text(replacement) and kind ~= "table" and kind ~= "function" then return native.gsub(text, pattern, replacement, most) end
  text, most = tostring(text), most and tonumber(most)
  local state = new_state(text, tostring(pattern), true)
  local parts, place, count = {}, 1, 0
  local following = each(state, 1)
  while not most or count < most do
    local start, stop = following()
    if not start then break end
    local value
    if kind == "table" then
      local first = state.captures[1]
      value = replacement[first and value_of(state, first) or sub(text, start, stop - 1)]
    elseif kind == "function" then
      value = replacement(captured(state, start, stop))
    else
      value = fill_in(tostring(replacement), state, start, stop)
    end
    if value and not is_text(value) then
      error(("invalid replacement value (a %s)"):format(type(value)), 0)
    end
    parts[#parts + 1] = sub(text, place, start - 1)
    parts[#parts + 1] = value or sub(text, start, stop - 1)
    place, count = stop, count + 1
    if state.anchored then break end
  end
  parts[#parts + 1] = sub(text, place)
  return table.concat(parts), count
end

for name, fn in pairs(M) do runtime.divert(string, name, takes_long, fn) end

-- Nothing, ever so often.
runtime.divert(string, "rep", function(text, times, separator)
  return text == "" and (separator == nil or separator == "") and math.type(times) ~= nil
end, function() return "" end)

return M
