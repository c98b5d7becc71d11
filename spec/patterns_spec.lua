-- Pattern matching whose steps are counted: the same as the library's, and ended by a limit.
local dockrun = require "dockrun"
local limited = require "dockrun.limited"
local patterns = require "dockrun.patterns"
local random = require "spec.fuzz.random"

describe("pattern matching under limits", function()
  local TEXT = { "a", "b", "c", "(", ")", "1", " ", "%", "." }
  local ITEMS = { "a", "b", ".", "%a", "%d", "%s", "%(", "[ab]", "[^a]", "[a-c]", "[%d ]", "%%", "[]]", "[^]]", "%S", "[a-]", "^", "$" }
  local OTHERS = { "()", "%b()", "%f[ab]", "%1", "%2", "%0", "$", ")", "%g" }

  local function make_pattern(dice)
    local parts, open = { dice:one_in(6) and "^" or "" }, 0
    for _ = 1, dice:int(0, 6) do
      local kind = dice:int(1, 12)
      if kind <= 7 then
        parts[#parts + 1] = dice:pick(ITEMS) .. dice:pick { "", "", "*", "+", "-", "?" }
      elseif kind <= 9 then
        parts[#parts + 1], open = "(", open + 1
      elseif kind == 10 and open > 0 then
        parts[#parts + 1], open = ")", open - 1
      else
        parts[#parts + 1] = dice:pick(OTHERS)
      end
    end
    parts[#parts + 1] = (")"):rep(open) .. (dice:one_in(6) and "$" or "")
    return table.concat(parts)
  end

  -- All that a call gives, as text; an error as that alone.
  local function outcome(fn, ...)
    local answer = table.pack(pcall(fn, ...))
    if not answer[1] then return "error" end
    for i = 1, answer.n do answer[i] = tostring(answer[i]) end
    return table.concat(answer, "|")
  end

  local function all_of(gmatch)
    return function(...)
      local found = {}
      for a, b, c in gmatch(...) do found[#found + 1] = table.concat({ tostring(a), tostring(b), tostring(c) }, ",") end
      return table.concat(found, ";")
    end
  end

  it("is the library's", function()
    local dice = random.new(20240501)
    local function check(name, own, theirs, ...)
      local mine, lib = outcome(own, ...), outcome(theirs, ...)
      if mine ~= lib then error(("%s(%s) gives %s, and not %s"):format(name, table.concat({ ... }, ", "), mine, lib)) end
    end
    for _ = 1, 4000 do
      local text = table.concat(dice:some(0, 12, function() return dice:pick(TEXT) end))
      local pattern, init = make_pattern(dice), dice:int(-4, 14)
      check("find", patterns.find, string.find, text, pattern, init)
      check("match", patterns.match, string.match, text, pattern, init)
      check("gmatch", all_of(patterns.gmatch), all_of(string.gmatch), text, pattern, init)
      check("gsub", patterns.gsub, string.gsub, text, pattern, dice:pick { "x", "%0%0", "<%1>", "%%", "%2", "%x" }, dice:int(-1, 9))
      check("gsub with a table", patterns.gsub, string.gsub, text, pattern, { a = "A", b = false, ab = 12 })
      check("gsub with a function", patterns.gsub, string.gsub, text, pattern, function(a, b) return a == "a" and (b or 1) end)
    end
  end)

  for _, pattern in ipairs { "[a", "%", "%b", "%bx", "%f", "(a", "a+)", "%9" } do
    it(("refuses '%s'"):format(pattern), function()
      assert.is_false((pcall(patterns.find, "abc", pattern)))
    end)
  end

  local LIMITS = { timeout = 20, instructions = 2000000, memory = 64, seconds = 20, period = 20 }

  -- In a call under limits, from which nothing else gets out.
  local function under_limits(fn)
    local answer
    dockrun.spawn(function() answer = table.pack(limited.call(LIMITS, fn)) end):await()
    return table.unpack(answer, 1, answer.n)
  end

  for what, fn in pairs {
    ["a pattern that backtracks without end"] = function() return ("a"):rep(40):find(("a?"):rep(40) .. ("a"):rep(40)) end,
    ["one in gsub"] = function() return ("x"):rep(60):gsub(".-.-.-.-.-.-.-.-.-b", "") end,
    ["one in gmatch"] = function() return ("x"):rep(60):gmatch ".-.-.-.-.-.-.-.-.-b"() end,
    ["one in match"] = function() return ("x"):rep(60):match ".*.*.*.*.*.*.*.*.*b" end,
    ["a plain search that compares without end"] = function() return ("a"):rep(1000000):find(("a"):rep(100000) .. "b", 1, true) end,
  } do
    it("ends " .. what, function()
      local ok, why = under_limits(fn)
      assert.is_false(ok)
      assert.matches("instructions", why)
    end)
  end

  it("finds what is there, however costly the pattern looks", function()
    local ok, found = under_limits(function() return ("k1=v1 k2=v2 k3=v3 end"):match "^(%S+)%s+(%S+)%s+(%S+)%s+(%S+)$" end)
    assert.same({ true, "k1=v1" }, { ok, found })
    ok, found = under_limits(function() return ("x"):rep(20000):find("y", 1, true) == nil and ("ab"):rep(300):gsub("(a)(b)", "%2%1") end)
    assert.same({ true, ("ba"):rep(300) }, { ok, found })
  end)

  it("repeats nothing without end", function()
    local ok, length = under_limits(function() return #(""):rep(1 << 60) end)
    assert.same({ true, 0 }, { ok, length })
  end)

  it("leaves the library as it is for whoever has no limits", function()
    assert.equal(("a"):rep(20), ("a"):rep(20):match(("a?"):rep(2) .. ("a"):rep(18)))
    local ok, why = pcall(string.find, "x", "[a")
    assert.is_false(ok)
    assert.matches("missing ']'", why, 1, true)
  end)
end)
