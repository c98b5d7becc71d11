local load = require "dockrun.job.load"
local sandbox = require "dockrun.sandbox.chunk"

-- What a chunk returns, in small limits.
local function run(text, limits) return sandbox.run(text, "job.lua", {}, limits or { instructions = 200000 }) end

local function refused(text, expected, limits)
  local ok, err = run(text, limits)
  assert.is_false(ok, text)
  assert.truthy(err.message:find(expected, 1, true), err.message)
end

-- Libraries and string methods of the host: every function, as it was.
local function snapshot()
  local all = { strings = getmetatable("").__index }
  for name, library in pairs { _G = _G, string = string, table = table, math = math, os = os, io = io, debug = debug } do
    for key, value in pairs(library) do all[name .. "." .. key] = value end
  end
  return all
end

describe("an untrusted chunk", function()
  for _, name in ipairs {
    "io", "require", "load", "loadfile", "dofile", "loadstring", "debug", "coroutine", "package", "_G", "setmetatable",
    "getmetatable", "rawset", "rawget", "collectgarbage", "print", "xpcall", "arg",
  } do
    it("has no " .. name, function() refused("return " .. name, ("'%s' is not defined"):format(name)) end)
  end

  it("has of os only time, date and getenv", function()
    local ok, names = run "local n = {} for k in pairs(os) do n[#n + 1] = k end table.sort(n) return n"
    assert.is_true(ok)
    assert.same({ "date", "getenv", "time" }, names)
  end)

  for _, name in ipairs { "string.dump", "string.pack", "table.move", "math.random", "math.randomseed" } do
    it("has no " .. name, function() assert.same({ true }, { run("return " .. name) }) end)
  end

  it("is text, never bytecode", function()
    refused(string.dump(function() return 1 end), "attempt to load a binary chunk")
  end)

  it("can do what a job file does", function()
    local ok, result = run [[
      local t = {}
      for word in ("a-b.c"):gmatch "%w" do t[#t + 1] = word:upper() end
      table.sort(t, function(a, b) return a > b end)
      local ok, why = pcall(error, { code = 7 })
      return table.concat(t, ",") .. ("x"):rep(3) .. ("%d"):format(math.max(1, 2)) .. tostring(why.code)
        .. (("k=v"):gsub("(%w)=(%w)", "%2=%1")) .. ("abc"):gsub("%w", { a = 1 }):gsub("c", string.upper)]]
    assert.is_true(ok, ok or result.message)
    assert.equal("C,B,Axxx27v=k1bC", result)
  end)

  it("leaves the host's libraries as they are", function()
    local before = snapshot()
    for _, text in ipairs {
      "string.rep = nil; string.format = function() return 'evil' end; table.concat = 1; math.huge = 0; os.time = nil",
      "_ENV.string = nil; _ENV.pairs = nil",
      "('').evil = 1",
      "string.rep = error; ('x'):rep(1)",
      "while true do end",
      "error(string)",
    } do run(text) end
    assert.same(before, snapshot())
    assert.equal("xx", ("x"):rep(2))
    assert.is_true(collectgarbage "isrunning")
  end)

  it("reaches by a string's methods only the sandbox's functions", function()
    assert.same({ true, true }, { run "return ('').rep == string.rep and ('').dump == nil" })
  end)

  it("cannot reach into another chunk", function()
    run "string.rep = 'gone'; shared = 1"
    assert.same({ true, "xx" }, { run "return ('x'):rep(2)" })
    refused("return shared", "'shared' is not defined")
  end)
end)

-- Keys that make `#` double its guess until it ends at 2^62 (lua_next's border search), in a table of 60 items.
local sparse = {}
for bit = 3, 62 do sparse[#sparse + 1] = ("[%d] = 1"):format(1 << bit) end
sparse = table.concat(sparse, ", ")

local MEMORY = "it used more than 64 MB of memory"

describe("the limits of an untrusted chunk", function()
  for _, case in ipairs {
    { "an endless loop", "while true do end", "endless loop" },
    { "an endless recursion", "local function f() return f() end f()", "endless loop" },
    { "a loop that catches the limit", "while true do pcall(function() while true do end end) end", "endless loop" },
    { "a recursion that catches the limit", "local function f() pcall(f) return f() end f()", "endless loop" },
    { "a catch that returns as if nothing was", "pcall(function() while true do end end) return 'job'", "endless loop" },
    { "a chunk that catches the lack of memory", "pcall(function() return ('x'):rep(1e9) end) return 'job'", MEMORY },
    { "catches in catches", "local function f() assert(pcall(f)) end f()", "pcall: nested more than 50 deep" },
    { "an endless loop in a comparison", "table.sort({ 3, 2, 1 }, function() while true do end end)", "endless loop" },
    { "an endless loop in a replacement", "('x'):gsub('.', function() while true do end end)", "endless loop" },
    { "a string that doubles", "local s = 'x' while true do s = s .. s end", MEMORY },
    { "strings joined many at once", "local s = ('x'):rep(1 << 20) return s" .. (" .. s"):rep(80), MEMORY },
    { "tables without end", "local t = {} for i = 1, 1e9 do t = { t } end", MEMORY },
    { "a long list of strings", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end", MEMORY },
    { "string.rep", "return (string.rep('x', 1e9))", MEMORY },
    { "string.rep as a method", "return (('x'):rep(1e9))", MEMORY },
    { "string.rep with a long separator", "return (('x'):rep(10000, ('y'):rep(10000)))", MEMORY },
    { "string.format of one long string, many times",
      "local t, s = {}, ('x'):rep(1000000) for i = 1, 200 do t[i] = s end return (('%s'):rep(200):format(table.unpack(t)))", MEMORY },
    { "string.gsub with a long replacement", "local s = ('x'):rep(100000) return (s:gsub('.', s))", MEMORY },
    { "string.gsub with a table of long values", "local s = ('x'):rep(100000) return (s:gsub('.', { x = s }))", MEMORY },
    { "string.gsub with a function", "local s = ('x'):rep(100000) return (s:gsub('.', function() return s end))", MEMORY },
    { "string.gsub with long captures", "local s = ('x'):rep(10000) return (s:gsub('.*', ('%0'):rep(10000)))", MEMORY },
    { "table.concat of one long string, many times",
      "local s, t = ('x'):rep(100000), {} for i = 1, 1000 do t[i] = s end return (table.concat(t))", MEMORY },
    { "os.date of a long format", "return os.date(('%c'):rep(4000000))", MEMORY },
    { "a chunk that is long itself", "return {" .. ("{}, "):rep(2000000) .. "}", MEMORY },
    { "a pattern that backtracks without end",
      "return (('a'):rep(40):find(('a*'):rep(40) .. 'b'))", "string.find: the pattern is too costly" },
    { "patterns that take long, one after the other",
      "local s = ('a'):rep(14000) while true do pcall(s.find, s, 'a*b') end", "it ran for more than 1 seconds" },
    { "lists that are long to sort, one after the other",
      "local t = {} for i = 1, 40000 do t[i] = i * 7 % 977 end while true do table.sort(t) end", "it ran for more than 1 seconds" },
    { "a list whose length is a lie",
      "local t = { 1, 1, 1, 1, [5] = 1, " .. sparse .. " } table.insert(t, 1, 1)", "table.insert: more than" },
  } do
    local what, text, expected = table.unpack(case)
    it("stop " .. what, function()
      local before = os.clock()
      refused(text, expected, {
        instructions = expected == MEMORY and 10000000 or 300000, seconds = expected:find "seconds" and 1 or 20,
      })
      assert.is_true(os.clock() - before < 25)
    end)
  end

  it("hold no more once it has ended, however it did", function()
    for _, text in ipairs { "return 1", "error 'no'", "(", "while true do end", "return ('x'):rep(1e9)" } do
      run(text, { memory = 1, instructions = 100 })
      assert.equal(2 << 20, #("x"):rep(2 << 20))
      for _ = 1, 100000 do text = text end
    end
  end)

  it("leave none of the memory in use", function()
    collectgarbage()
    local before = collectgarbage "count"
    run("local t = {} while true do t[#t + 1] = {} end", { instructions = 10000000, memory = 64 })
    collectgarbage()
    assert.is_true(collectgarbage "count" - before < 1024)
  end)

  it("are ten million instructions where nothing is said, and may be set by the caller", function()
    assert.equal(10000000, sandbox.limits.instructions)
    local text = "for i = 1, 100000 do end return job 'j' {}"
    assert.truthy(load.string(text, "lua", "job.lua"))
    local _, err = load.string(text, "lua", "job.lua", { instructions = 1000 })
    assert.equal("job.lua:1: it ran more than 1000 instructions: an endless loop?", tostring(err))
  end)

  it("name the line", function()
    local _, err = run "\n\nwhile true do end"
    assert.equal(3, err.line)
  end)

  for _, object in ipairs { "nil", "{}", "true", "function() end", "12" } do
    it("take an error that is not a message: " .. object, function()
      local ok, err = run(("\nerror(%s)"):format(object))
      assert.is_false(ok)
      assert.equal("string", type(err.message))
      assert.equal(2, err.line)
    end)
  end
end)

describe("what a chunk returns", function()
  local function returns(text)
    local job, err = load.string(text, "lua", "job.lua")
    assert.is_nil(job)
    return err.message
  end

  for _, case in ipairs {
    { "no table", "return 5", "returns no job" },
    { "nothing", "job 'x' {}", "returns no job" },
    { "a table that holds itself", "local t = { name = 'x' } t.meta = t return t", "nested too deeply" },
    { "tables that multiply", "local t = {} for _ = 1, 30 do t = { t, t } end return { name = 'x', groups = t }", "holds more than" },
    { "a table with a table for a key", "return { name = 'x', [{}] = 1 }", "a table cannot be a key" },
    { "the environment itself", "return _ENV", "unknown key" },
    { "a function where there should be text", "return job 'x' { type = function() end }", "got a function" },
    { "a job without a name", "return job {}", "job needs a name" },
    { "a group without a body", "return job 'x' { group 'g' 'h' }", "needs a body" },
  } do
    local what, text, expected = table.unpack(case)
    it("is refused, not trusted: " .. what, function()
      assert.truthy(returns(text):find(expected, 1, true), returns(text))
    end)
  end

  it("may use one body under two names", function()
    local job = assert(load.string([[
      local body = { config = { image = "x" } }
      return job "j" { group "g" { task "a" (body), task "b" (body) } }]], "lua"))
    assert.same({ "a", "b" }, { job.groups[1].tasks[1].name, job.groups[1].tasks[2].name })
  end)
end)
