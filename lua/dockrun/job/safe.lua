--- The standard library as a job file may have it: nothing that reaches the machine, the host program's own tables or
--- bytecode, and no single call that can take long or much. (Between calls, sandbox.lua counts.)

local M = {}

local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local find, gmatch, gsub, match, rep = string.find, string.gmatch, string.gsub, string.match, string.rep

--- The longest string that one call may make, in bytes.
M.longest = 1 << 20

local MOST_STEPS = 100000000  -- of one pattern match: about a second
local MOST_ITEMS = 1000000    -- of a list whose items one call may move

local function refuse(name, why) error(("%s: %s"):format(name, why), 0) end  -- sandbox.lua finds the line

local function check_length(name, length)
  if length > M.longest then refuse(name, ("the result would be longer than %d bytes"):format(M.longest)) end
end

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

local function check_match(name, subject, pattern)
  if type(subject) == "number" then subject = tostring(subject) end
  if type(subject) ~= "string" or type(pattern) ~= "string" then return end  -- the library says it better
  if steps(subject, pattern) > MOST_STEPS then refuse(name, "the pattern is too costly for a string of this length") end
end

-- What string.gsub takes as a replacement, counting what it gives: the library builds its result unseen.
local function counted(replacement, length)
  return function(...)
    local value
    if type(replacement) == "table" then value = replacement[(...)] else value = replacement(...) end
    length = length + (value and #tostring(value) or 0)
    check_length("string.gsub", length)
    return value
  end
end

local function strings()
  local S = {
    byte = string.byte, char = string.char, format = string.format, len = string.len, lower = string.lower,
    reverse = string.reverse, sub = string.sub, upper = string.upper,
  }

  function S.rep(s, n, sep)
    if type(n) == "number" and n > 0 then
      check_length("string.rep", (#tostring(s) + #tostring(sep or "")) * n)
    end
    return rep(s, n, sep)
  end

  function S.find(s, pattern, init, plain)
    check_match("string.find", s, pattern)
    return find(s, pattern, init, plain)
  end

  function S.match(s, pattern, init)
    check_match("string.match", s, pattern)
    return match(s, pattern, init)
  end

  function S.gmatch(s, pattern, init)
    check_match("string.gmatch", s, pattern)
    return gmatch(s, pattern, init)
  end

  function S.gsub(s, pattern, replacement, n)
    check_match("string.gsub", s, pattern)
    if type(replacement) == "table" or type(replacement) == "function" then
      replacement = counted(replacement, #tostring(s))
    elseif type(replacement) == "string" then
      -- Each match gives the replacement, and of what it matched at most so much as there are % in it.
      check_length("string.gsub", (#tostring(s) + 1) * #replacement + #tostring(s) * select(2, gsub(replacement, "%%", "")))
    end
    return gsub(s, pattern, replacement, n)
  end

  return S
end

local function tables()
  local T = { pack = table.pack, unpack = table.unpack }

  local function check_items(name, list)
    if type(list) == "table" and #list > MOST_ITEMS then refuse(name, ("more than %d items"):format(MOST_ITEMS)) end
  end

  function T.concat(list, sep, i, j)
    local length = 0
    for at = i or 1, j or #list do
      local item = list[at]
      if item == nil then break end  -- the library says it better
      length = length + #tostring(item) + #tostring(sep or "")
      check_length("table.concat", length)
    end
    return concat(list, sep, i, j)
  end

  function T.insert(list, ...)
    check_items("table.insert", list)
    return insert(list, ...)
  end

  function T.remove(list, ...)
    check_items("table.remove", list)
    return remove(list, ...)
  end

  function T.sort(list, ...)
    check_items("table.sort", list)
    return sort(list, ...)
  end

  return T
end

local function copy(library, ...)
  local new = {}
  for name, value in pairs(library) do new[name] = value end
  for _, name in ipairs { ... } do new[name] = nil end
  return new
end

--- A library of one's own, so that what one file does to it reaches no other.
---@return table<string, any> globals
function M.globals()
  return {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = pcall, select = select,
    tonumber = tonumber, tostring = tostring, type = type, _VERSION = _VERSION,
    math = copy(math, "random", "randomseed"),  -- a file means the same each time, and the host's generator is its own
    os = { time = os.time, date = os.date, getenv = os.getenv },
    string = strings(), table = tables(), utf8 = copy(utf8),
  }
end

return M
