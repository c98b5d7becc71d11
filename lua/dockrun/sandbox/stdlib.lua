--- The standard library as a job file may have it: nothing that reaches the machine, the host program's own tables or
--- bytecode, and no single call that can take long. (Between calls, sandbox.lua looks at the limits; those of memory hold
--- in calls too.)

local M = {}

local concat, insert, remove, sort = table.concat, table.insert, table.remove, table.sort
local find, gmatch, gsub, match = string.find, string.gmatch, string.gsub, string.match

local MOST_STEPS = 100000000  -- of one pattern match: about a second
local MOST_ITEMS = 1000000    -- of a list whose items one call may move
local CHEAP = 100             -- a part of those that takes no time worth a look at the clock

local function refuse(name, why) error(("%s: %s"):format(name, why), 0) end  -- sandbox.lua finds the line

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

---@param in_time fun()  raises where there is no time left
local function strings(in_time)
  local S = {
    byte = string.byte, char = string.char, format = string.format, len = string.len, lower = string.lower, rep = string.rep,
    reverse = string.reverse, sub = string.sub, upper = string.upper,
  }

  local function check_match(name, subject, pattern)
    if type(subject) == "number" then subject = tostring(subject) end
    if type(subject) ~= "string" or type(pattern) ~= "string" then return end  -- the library says it better
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

-- An error costs time by the depth of the stack. Where a chunk catches errors at any depth, going back from the last limit
-- would take as many steps, each of that cost.
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

local function copy(library, ...)
  local new = {}
  for name, value in pairs(library) do new[name] = value end
  for _, name in ipairs { ... } do new[name] = nil end
  return new
end

--- A library of one's own, so that what one file does to it reaches no other.
---@param in_time fun()  called before what takes long: raises where there is no time left
---@return table<string, any> globals
function M.globals(in_time)
  return {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, pcall = catcher(), select = select,
    tonumber = tonumber, tostring = tostring, type = type, _VERSION = _VERSION,
    math = copy(math, "random", "randomseed"),  -- a file means the same each time, and the host's generator is its own
    os = { time = os.time, date = os.date, getenv = os.getenv },
    string = strings(in_time), table = tables(in_time), utf8 = copy(utf8),
  }
end

return M
