-- Pattern matching whose steps are counted: the same as Lua's own, and ended by a limit or a signal.
local dockrun = require "dockrun"
local limited = require "dockrun.sandbox.call"
local hosts = require "spec.host"
local process = require "spec.process"
local random = require "spec.fuzz.random"

-- Lua's own functions. To open its library anew makes it the strings' own: that is undone.
local function open_library()
  local native = assert(package.loadlib("liblua5.4.so.0", "luaopen_string"))()
  getmetatable("").__index = string
  package.loaded.native = native  -- so that its errors name its functions
  return native
end

describe("pattern matching", function()
  local native = open_library()

  local TEXT = { "a", "b", "c", "(", ")", "1", " ", "%", ".", "z", "G", "\0", "\n", "\xe9" }
  local ITEMS = { "a", "b", ".", "%a", "%d", "%s", "%(", "[ab]", "[^a]", "[a-c]", "[%d ]", "%%", "[]]", "[^]]", "%S", "[a-]", "^", "$",
    "%z", "%W", "[%a_-]", "[^%s]",
    "[b-]", "[%]]", "\0" }
  -- Each class, and each letter that is none.
  for byte in ("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"):gmatch "[^bfF]" do ITEMS[#ITEMS + 1] = "%" .. byte end
  local OTHERS = { "[a", "%", "%b", "%bx", "%f", "(", "%b((", "()", "%b()", "%f[ab]", "%1", "%2", "%0", "$", ")", "%g" }

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

  -- All that a call gives, as text.
  local function outcome(fn, ...)
    local answer = table.pack(pcall(fn, ...))
    for i = 1, answer.n do answer[i] = tostring(answer[i]) end
    return (table.concat(answer, "|"):gsub("'native%.", "'string."):gsub("function: .*", "function"))
  end

  local function all_of(gmatch)
    return function(...)
      local found = {}
      for a, b, c in gmatch(...) do found[#found + 1] = table.concat({ tostring(a), tostring(b), tostring(c) }, ",") end
      return table.concat(found, ";")
    end
  end

  it("gives what Lua's own gives, errors too", function()
    local dice = random.new(20240501)
    local function check(name, own, theirs, ...)
      local mine, lib = outcome(own, ...), outcome(theirs, ...)
      if mine ~= lib then error(("%s(%s) gives %s, and not %s"):format(name, table.concat({ ... }, ", "), mine, lib)) end
    end
    for _ = 1, 6000 do
      local text = table.concat(dice:some(0, 12, function() return dice:pick(TEXT) end))
      local pattern, init = make_pattern(dice), dice:int(-4, 14)
      check("find", string.find, native.find, text, pattern, init)
      check("match", string.match, native.match, text, pattern, init)
      check("gmatch", all_of(string.gmatch), all_of(native.gmatch), text, pattern, init)
      check("gsub", string.gsub, native.gsub, text, pattern, dice:pick { "x", "%0%0", "<%1>", "%%", "%2", "%x" }, dice:int(-1, 9))
      check("gsub with a table", string.gsub, native.gsub, text, pattern, { a = "A", b = false, ab = 12 })
      check("gsub with a function", string.gsub, native.gsub, text, pattern, function(a, b) return a == "a" and (b or 1) end)
    end
  end)

  for _, pattern in ipairs { "[a", "%", "%b", "%bx", "%f", "(a", "a+)", "%9" } do
    it(("refuses '%s'"):format(pattern), function()
      assert.is_false((pcall(string.find, "abc", pattern)))
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

  it("gives what Lua's own gives for arguments of every type", function()
    for _, name in ipairs { "find", "match", "gmatch", "gsub", "rep" } do
      assert.are_not.equal(native[name], string[name])
      for _, arguments in ipairs { {}, { "x" }, { {}, "x" }, { "x", {} }, { 12, 1 }, { 12, 1, "x" }, { "aXb", "%u", {} },
        { "aXb", "%u", true },
        { "aXb", "%u", 1.5 }, { "aXb", "X", "y", "z" }, { "aXb", "X", "y", 0 }, { "aXb", "X", 2 }, { "aXb", "b", -1 }, { "ab", "", 3 },
        { "ab", "", 4 }, { "ab", "", math.mininteger }, { "ab", "", math.maxinteger }, { "ab", "b", 1, true }, { "a.b", ".", 1, true },
        { "abc", "()", "%1" }, { "abc", "(b)()", "%2" }, { "abc", ("(a?)"):rep(33) }, { "abc", "b", function() return {} end },
        { ("a"):rep(300), ("a?"):rep(300) },
        { "a\0b\0", "\0b" }, { "a", 3 }, { "", 5 }, { "a", -1 }, { "", 2, "," }, { "a", 1 << 62 } } do
        assert.equal(outcome(native[name], table.unpack(arguments)), outcome(string[name], table.unpack(arguments)))
      end
    end
  end)

  for _, signal in ipairs { "SIGINT", "SIGTERM" } do
    for where, code in pairs {
      ["the script"] = "%s",
      ["a task beside it"] = "require('dockrun').spawn(function() %s end):await()",
    } do
      it(("is ended by %s in %s"):format(signal, where), function()
        local child <close> = process.start { "-e", "print 'ready' io.stdout:flush() " ..
          code:format "return (('a'):rep(30):find(('a*'):rep(30) .. 'b'))" }
        child:wait_for "ready\n"
        dockrun.sleep(0.1)
        child:kill(signal)
        local result = child:wait()
        assert.equal(130, result.code, result.stderr)
        assert.matches("interrupted by " .. signal, result.stderr)
      end)
    end
  end

  it("is left to a host's Lua until that sets limits", function()
    local installed <close> = hosts.install()
    local result = hosts.run("lua5.4", { "-e", [[
      local find = string.find
      local dockrun = require "dockrun"
      dockrun.agent()
      print(find == string.find)
      dockrun.spawn(function() dockrun.limit { seconds = 20 } end):await()
      print(find == string.find, ("x=1"):find "%d")]] }, installed:lua_environment())
    assert.equal("true\nfalse\t3\t3\n", result.stdout, result.stderr)
  end)
end)
