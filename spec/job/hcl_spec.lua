-- What HCL means, value by value and error by error; whole job files are in the corpus.
local hcl = require "dockrun.job.readers.hcl"
local load = require "dockrun.job.load"
local tree = require "dockrun.job.tree"

local function read(text) return assert(hcl.read(text)) end

-- "line:column: message" of each problem.
local function problems(text)
  local raw, list = hcl.read(text)
  assert.is_nil(raw)
  for i, one in ipairs(list) do list[i] = ("%d:%d: %s"):format(one.line, one.column, one.message) end
  return list
end

local function problem(text)
  local list = problems(text)
  assert.equal(1, #list)
  return list[1]
end

describe("a value in HCL", function()
  for _, case in ipairs {
    { "0", 0 }, { "42", 42 }, { "-7", -7 }, { "0x1F", 31 }, { "0Xff", 255 }, { "-0x10", -16 }, { "017", 15 }, { "00", 0 },
    { "0.5", 0.5 }, { "-.5", -0.5 }, { "1.", 1 }, { "3.0", 3 }, { "1e3", 1000 }, { "2E-1", 0.2 }, { "1.5e+2", 150 },
    { "0159.5", 159.5 }, { "9223372036854775807", math.maxinteger }, { "-9223372036854775808", math.mininteger },
    { "true", true }, { "false", false },
    { '""', "" }, { '"a b"', "a b" }, { [["\"\\\a\b\f\n\r\t\v"]], "\"\\\a\b\f\n\r\t\v" }, { [["\x41\101\x7e"]], "AA~" },
    { [["\u00e9\U0001f600"]], "é😀" }, { [["\ud83d\ude00"]], "😀" }, { '"# // /* */"', "# // /* */" }, { '"$ $$ $x 5$"', "$ $$ $x 5$" },
    { '"${a}"', "${a}" }, { '"x${a["b c"]}y"', 'x${a["b c"]}y' }, { [["${a \n "\q"}"]], [[${a \n "\q"}]] },
    { '"${a{b}{c{d}}}"', "${a{b}{c{d}}}" }, { '"${a\nb}"', "${a\nb}" }, { '"$${a}"', "$${a}" }, { '"}{"', "}{" },
    { "<<E\na\n b\nE", "a\n b\n" }, { "<<E\nE", "" }, { "<<E\n\"${x\\t\nE\n", "\"${x\\t\n" }, { "<<E\nEE\nE E\n E\n", "EE\nE E\n" },
    { "<<-E\n  a\n    b\n  E", "a\n  b\n" }, { "<<-E\n\ta\n\n\tE", "a\n\n" }, { "<<-E\n a\n  E", " a\n" }, { "<<E\r\na\r\nE\r\n", "a\n" },
    { "[]", {} }, { "[1, \"b\", true,]", { 1, "b", true } }, { "[[1], [2, [3]]]", { { 1 }, { 2, { 3 } } } },
    { "[<<E\nx\nE\n, 1]", { "x\n", 1 } }, { "[ # one\n1 /* , */ , // two\n2\n]", { 1, 2 } },
    { "{}", {} }, { '{ a = 1, "b c" = 2 d.e-f = 3 }', { a = 1, ["b c"] = 2, ["d.e-f"] = 3 } }, { "{ a = 1, }", { a = 1 } },
    { "{ a { b { c = 1 } } }", { a = { b = { c = 1 } } } }, { '[{ a = 1 }, { a = 2 }]', { { a = 1 }, { a = 2 } } },
  } do
    local text, value = table.unpack(case)
    it(("reads %q"):format(text), function()
      assert.same({ key = value }, read("key = " .. text))
      assert.same({ key = value }, read("key=" .. text .. "\n# and no more"))
      assert.equal(math.type(value), math.type(read("key = " .. text).key))
    end)
  end
end)

describe("a block in HCL", function()
  for _, case in ipairs {
    { "without a label", "a { b = 1 }", { a = { b = 1 } } },
    { "with one", 'a "b" { c = 1 }', { a = { b = { c = 1 } } } },
    { "with bare ones", "a b c {}", { a = { b = { c = {} } } } },
    { "opened on the next line", 'a "b"\n{\n}', { a = { b = {} } } },
    { "with a quoted key", '"a b" "c" {}', { ["a b"] = { c = {} } } },
    { "on one line with others", "a {} b {}, c = 1 d = 2", { a = {}, b = {}, c = 1, d = 2 } },
    { "twice", "a { b = 1 } a { b = 2 }", { a = { { b = 1 }, { b = 2 } } } },
    { "beside a list of them", "a { b = 1 } a = [{ b = 2 }, { b = 3 }] a = { b = 4 }",
      { a = { { b = 1 }, { b = 2 }, { b = 3 }, { b = 4 } } } },
    { "with each its label", 'a "x" {} a "y" {} a "x" {}', { a = { { x = {} }, { y = {} }, { x = {} } } } },
  } do
    local what, text, value = table.unpack(case)
    it("may appear " .. what, function() assert.same(value, read(text)) end)
  end

  it("may be missing altogether", function() assert.same({}, read "# nothing\n/* here */") end)
end)

describe("a comment in HCL", function()
  for _, text in ipairs {
    "# x\na = 1", "// x\na = 1", "/* x */ a = 1", "/* x\n * y */ a /**/ = /***/ 1 /* z */", "a = 1 # }", "a = 1 // {", "#!/bin/x\na=1#",
    "\u{feff}a = 1", "/* // */ a = 1 // /*", "\r\n\ta = 1\r\n",
  } do
    it(("is passed over in %q"):format(text), function() assert.same({ a = 1 }, read(text)) end)
  end
end)

describe("an error in HCL", function()
  for _, case in ipairs {
    { "a", "1:2: found the end of the file, expected '=', '{' or a label" },
    { "a =", "1:4: found the end of the file, expected a value" },
    { "a = }", "1:5: found '}', expected a value" },
    { "a = b", "1:5: found 'b', expected a value; text must be in double quotes" },
    { "a = 'b'", "1:5: found ''', expected a value; text must be in double quotes" },
    { "a = 15s", "1:5: found '15s', expected a number such as 10, -1 or 0.5; text must be in double quotes" },
    { "a = 10.0.0.1", "1:5: found '10.0.0.1', expected a number such as 10, -1 or 0.5; text must be in double quotes" },
    { "a = 0x", "1:5: found '0x', expected a number such as 10, -1 or 0.5; text must be in double quotes" },
    { "a = 08", "1:5: found '08', expected an octal number, as it begins with 0" },
    { "a = 1e999", "1:5: the number '1e999' is too large" },
    { "a = 0x10000000000000000", "1:5: the number '0x10000000000000000' is too large" },
    { "a: 1", "1:2: found ':', expected '=', '{' or a label" },
    { "= 1", "1:1: found '=', expected a key" },
    { "}", "1:1: found '}', expected a key" },
    { "80 = 1", "1:1: found '80', expected a key; a key that begins with a digit must be in double quotes" },
    { 'a "b" = 1', "1:7: found '=', expected '{' or a label" },
    { 'a "b" [', "1:7: found '[', expected '{' or a label" },
    { 'a "b"\nc = 1', "2:1: found 'c', expected '=' or '{' after 'a' of line 1" },
    { "a = [1 2]", "1:8: found '2', expected ',' or ']'" },
    { "a = [,]", "1:6: found ',', expected a value or ']'" },
    { "a = [1 = 2]", "1:8: found '=', expected ',' or ']'" },
    { "a = \"b", "1:5: the string that begins here is not closed: found the end of the file, expected '\"'" },
    { "a = \"b\nc = \"", "1:5: the string that begins here is not closed: found the end of the line, expected '\"'" },
    { "a = \"b\\", "1:7: found '\\', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …" },
    { [[a = "é\q"]], "1:7: found '\\q', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …" },
    { [[a = "\ud800"]], "1:6: found '\\ud800', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …" },
    { [[a = "\u12"]], "1:6: found '\\u12', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …" },
    { [[a = "\U00110000"]], "1:6: found '\\U00110000', expected an escape: \\n, \\t, \\\", \\\\, \\u and 4 hexadecimal digits …" },
    { "a = \"x${b", "1:7: the '${' that begins here is not closed: found the end of the file, expected '}'" },
    { "a = <<E", "1:5: found '<<' that begins no heredoc, expected <<WORD or <<-WORD, and then the end of the line" },
    { "a = <<\nx", "1:5: found '<<' that begins no heredoc, expected <<WORD or <<-WORD, and then the end of the line" },
    { "\na = <<E\nx\nEE\n", "2:5: the heredoc that begins here is not closed: found the end of the file, expected a line with 'E' alone" },
    { "a = 1\n/* b", "2:1: the comment that begins here is not closed: found the end of the file, expected '*/'" },
    { "a {", "1:4: found the end of the file, expected a key or '}'; the block that begins at line 1, column 3 is not closed" },
    { "é = [\n1,", "2:3: found the end of the file, expected a value or ']'; the list that begins at line 1, column 5 is not closed" },
    { "a {\nb = [1\n}", "3:1: found '}', expected ',' or ']'; the list that begins at line 2, column 5 is not closed" },
    { "a { b = 1 ]", "1:11: found ']', expected a key or '}'; the block that begins at line 1, column 3 is not closed" },
    { "日本 = 🐳", "1:6: found '🐳', expected a value; text must be in double quotes" },
    { "/* 🐳\n🐳 */ é = \"😀\" !", "2:14: found '!', expected a key" },
    { "a = “b”", "1:5: found '“', expected a value; text must be in double quotes" },
    { "é\xff", "1:2: found the byte 0xff, which is not UTF-8 here" },
    { "a = \"\0\"", "1:6: found a NUL byte" },
    { "a = " .. ("x"):rep(100), "1:5: found '" .. ("x"):rep(40) .. "…', expected a value; text must be in double quotes" },
  } do
    local text, message = table.unpack(case)
    it(("is told of %q"):format(text), function() assert.equal(message, problem(text)) end)
  end

  it("tells of the block whose end another one took", function()
    assert.equal("9:1: found the end of the file, expected a key or '}'; the block that begins at line 3, column 10 is not closed",
      problem 'job "x" {\n  group "g" {\n    meta {\n      a = 1\n    task "t" {\n    }\n  }\n}\n')
  end)

  it("tells of every key that is set twice", function()
    assert.same({
      "2:1: 'a' is set twice; the first time at line 1, column 1", "3:5: 'b' is set twice; the first time at line 3, column 1",
      "4:1: 'a' is set twice; the first time at line 1, column 1", "5:9: 'd' is set twice; the first time at line 5, column 5",
    }, problems "a = 1\na = 2\nb {}b = [1]\na { x = 1 }\nc { d=1 d=2 }" )
  end)
end)

describe("nesting in HCL", function()
  for what, pair in pairs { blocks = { "a {", "}" }, lists = { "[", "]" }, objects = { "{ a =", "}" }, labels = { " a ", "" } } do
    local open, close = table.unpack(pair)
    local before = what == "blocks" and "" or what == "labels" and "k" or "a = "
    local core = what == "blocks" and "" or what == "labels" and "{}" or "1"
    local function nested(n) return before .. open:rep(n) .. core .. close:rep(n) end

    it("of " .. what .. " may be as deep as a tree", function() read(nested(tree.DEEPEST - 1)) end)

    it("of " .. what .. " ends in an error, not in a crash", function()
      for _, n in ipairs { tree.DEEPEST + 1, 100000 } do
        assert.truthy(problem(nested(n)):find("nested more than 40 deep", 1, true))
        assert.truthy(problem(before .. open:rep(n) .. "{"))
      end
    end)
  end
end)

describe("the places of an HCL file", function()
  it("are those of keys, labels and items, in characters", function()
    local _, again = hcl.read 'é "ü" {\n\tb = ["🐳", 1, { c = 2 }]\n}\nd { e = 1 }\nd {}'
    local raw, locate = again()
    local function at(...) return { locate(...) } end
    local block = raw["é"]["ü"]
    assert.same({ 1, 1 }, at(raw, "é"))
    assert.same({ 1, 3 }, at(raw["é"], "ü"))
    assert.same({ 2, 2 }, at(block, "b"))
    assert.same({ 2, 7 }, at(block.b, 1))
    assert.same({ 2, 12 }, at(block.b, 2))
    assert.same({ 2, 17 }, at(block.b[3], "c"))
    assert.same({ 4, 1 }, at(raw, "d"))
    assert.same({ { 4, 1 }, { 5, 1 } }, { at(raw.d, 1), at(raw.d, 2) })
    assert.same({ 4, 5 }, at(raw.d[1], "e"))
    assert.same({}, at(raw, "nowhere"))
  end)

  it("are in the errors of what a job may not say", function()
    local _, err = load.string('job "x" {\n  group "g" {\n    cuont = 2\n  }\n}', "nomad", "job.nomad")
    assert.equal("job.nomad:3:5: job.x.group.g.cuont: unknown key 'cuont'; did you mean 'count'?", tostring(err))
  end)

  it("are found in repeated blocks as well", function()
    local _, err = load.string('job "x" {\n  task "a" {}\n  task "b" { config { image = [1] } }\n}', "hcl", "job.hcl")
    assert.equal("job.hcl:2:8: job.x.task.a.config.image: is required: image reference; no tag means latest\n"
      .. "job.hcl:3:23: job.x.task.b.config.image: must be a string, got a list", tostring(err))
  end)
end)

describe("reading a large HCL file", function()
  local function job(tasks, separator)
    local parts = { 'job "big" {' }
    for i = 1, tasks do
      parts[#parts + 1] = ('task "t%d" { config { image = "é${x}" args = ["a", "b"] command = "c" } env { A = 1 } }'):format(i)
    end
    parts[#parts + 1] = "}"
    return table.concat(parts, separator)
  end

  local function seconds(text)
    local least = math.huge
    for _ = 1, 3 do
      local start = os.clock()
      read(text)
      least = math.min(least, os.clock() - start)
    end
    return least
  end

  for what, separator in pairs { ["of many lines"] = "\n", ["of one line"] = " " } do
    it("takes time by its length: " .. what, function()
      assert.is_true(seconds(job(2400, separator)) < 8 * 3 * seconds(job(300, separator)))
    end)
  end
end)

describe("a job file", function()
  for _, ending in ipairs { "nomad", "hcl" } do
    it("is HCL where it ends in ." .. ending, function()
      assert.equal("x", assert(load.string('job "x" {}', ending)).name)
      assert.equal("cache", assert(load.file("spec/job/corpus/cache." .. ending)).name)
    end)
  end
end)
