--- The standard library for untrusted chunks.
---
--- Guarantees: no function reaches the file system, a program, bytecode or a table of the host program; no single call
--- takes long. chunk.lua checks its budget between calls, so a call of a C function must be short by itself; the budget of
--- memory is checked within calls too.
---
--- A replacement of this file must have `globals`.

local table_util = require "dockrun.util.tables"

local M = {}

local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local find, gmatch, gsub, match = string.find, string.gmatch, string.gsub, string.match

local MOST_STEPS = 100000000  -- of one pattern match: about a second
local MOST_ITEMS = 1000000    -- of a list whose items one call may move
local CHEAP = 100             -- a call with less than this part of them does not look at the clock

local function refuse(name, why) error(("%s: %s"):format(name, why), 0) end  -- chunk.lua adds the line

-- An upper bound of the steps that a match takes. Matching backtracks: each quantifier may end at any place at or after
-- the end of the one before it, which is C(n + k, k) ways for k quantifiers in n bytes.
local function steps(subject, pattern)
  local scans = select(2, gsub(pattern, "%%[b%d]", ""))
  local bare = gsub(gsub(pattern, "%%.", "x"), "%[%^?%]?[^%]]*%]", "x")
  local quantifiers = select(2, gsub(bare, "[-*+?]", "")) + (find(bare, "^%^") and 0 or 1)
  local bound = math.max(1, #pattern // 8) * (scans > 0 and #subject + 1 or 1)
  for i = 1, quantifiers do
    bound = bound * (#subject + i) / i
    if bound > MOST_STEPS then return bound end
  end
  return bound
end

---@param in_time fun()  raises if no processor time is left
local function strings(in_time)
  local S = {
    byte = string.byte, char = string.char, format = string.format, len = string.len, lower = string.lower, rep = string.rep,
    reverse = string.reverse, sub = string.sub, upper = string.upper,
  }

  local function check_match(name, subject, pattern)
    if type(subject) == "number" then subject = tostring(subject) end
    if type(subject) ~= "string" or type(pattern) ~= "string" then return end  -- the library raises the better error
    local bound = steps(subject, pattern)
    if bound > MOST_STEPS then refuse(name, "the pattern is too costly for a string of this length") end
    if bound > MOST_STEPS // CHEAP then in_time() end
  end

  for name, own in pairs { find = find, match = match, gmatch = gmatch, gsub = gsub } do
    S[name] = function(subject, pattern, ...)
      check_match("string." .. name, subject, pattern)
      return own(subject, pattern, ...)
    end
  end
  return S
end

---@param in_time fun()
local function tables(in_time)
  local T = { pack = table.pack, unpack = table.unpack }

  local function check_items(name, count)
    if count > MOST_ITEMS then refuse(name, ("more than %d items"):format(MOST_ITEMS)) end
    if count > MOST_ITEMS // CHEAP then in_time() end
  end

  function T.concat(list, sep, i, j)
    local first, last = tonumber(i) or 1, tonumber(j) or type(list) == "table" and #list or 0
    check_items("table.concat", last - first)
    return concat(list, sep, i, j)
  end

  for name, own in pairs { insert = insert, remove = remove, sort = sort } do
    T[name] = function(list, ...)
      if type(list) == "table" then check_items("table." .. name, #list) end
      return own(list, ...)
    end
  end
  return T
end

-- An error costs time by the depth of the stack. If a chunk could nest pcall without end, each of them would catch the
-- error of the budget at that cost.
local DEEPEST = 50

local function catcher()
  local depth = 0
  local function leave(...)
    depth = depth - 1
    return ...
  end
  return function(...)
    if depth == DEEPEST then refuse("pcall", ("nested more than %d deep"):format(DEEPEST)) end
    depth = depth + 1
    return leave(pcall(...))
  end
end

-- A library without some of its functions.
local function without(library, ...)
  local new = table_util.merge(library)
  for _, name in ipairs { ... } do new[name] = nil end
  return new
end

--- New tables with all globals of a chunk: a chunk that changes them does not affect the next one.
---@param in_time fun()  called before long work; raises if no processor time is left
---@return table<string, any> globals
function M.globals(in_time)
  return {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = catcher(), select = select,
    tonumber = tonumber, tostring = tostring, type = type, _VERSION = _VERSION,
    math = without(math, "random", "randomseed"),  -- a file gives the same job each time; the generator is the host program's
    os = { time = os.time, date = os.date, getenv = os.getenv },
    string = strings(in_time), table = tables(in_time), utf8 = without(utf8),
  }
end

return M
