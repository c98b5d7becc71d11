-- Descriptors 0 to 2: what a script writes arrives or is an error, and they stay as they were found.
local dockrun = require "dockrun"
local process = require "spec.process"
local standard = require "dockrun.core.standard"
local uv = require "luv"

local LINES = 50000
local COUNT = ("for i = 1, %d do %%s end"):format(LINES)

-- What a shell says to a script with dockrun as "$0"; `code` is "$1".
local function shell(words, code)
  return process.run({ "-c", words, process.program, code }, { program = "bash" })
end

-- Whether the descriptor's writes fail instead of waiting.
local function is_nonblocking(fd)
  local file <close> = assert(io.open("/proc/self/fdinfo/" .. fd))
  return tonumber(file:read("a"):match "flags:%s*(%d+)", 8) & 2048 ~= 0
end

-- All that the code writes on a descriptor of ours, whose reader begins late.
local function written_to(ours, theirs, code)
  local ended = dockrun.queue()
  local child = assert(uv.spawn(process.program, { args = { "-e", code }, stdio = { nil, theirs, 2 } }, function(...)
    ended:push { ... }
  end))
  local reader, parts, done = uv.new_pipe(), {}, dockrun.queue()
  reader:open(ours)
  dockrun.sleep(0.3)
  assert(uv.fs_close(theirs))
  reader:read_start(function(_, bytes)
    if bytes then parts[#parts + 1] = bytes else done:push(true) end
  end)
  assert(done:pop(60))
  reader:close()
  local exit = ended:pop(60)
  child:close()
  return table.concat(parts), exit[1]
end

describe("what a script writes", function()
  local expected = {}
  for i = 1, LINES do expected[i] = i .. "\n" end
  expected = table.concat(expected)

  for what, code in pairs {
    ["print"] = COUNT:format "print(i)", ["io.write"] = COUNT:format "io.write(i, '\\n')",
    ["os.exit"] = COUNT:format "io.write(i, '\\n')" .. " os.exit(0)",
    ["os.exit with a closed state"] = COUNT:format "io.write(i, '\\n')" .. " os.exit(0, true)",
  } do
    it("arrives whole on a non-blocking pipe whose reader is slow: " .. what, function()
      local pipe = assert(uv.pipe({ nonblock = true }, { nonblock = true }))
      local text, code_of_exit = written_to(pipe.read, pipe.write, code)
      assert.equal(0, code_of_exit)
      assert.is_true(text == expected, #text .. " bytes")
    end)
  end

  for _, nonblock in ipairs { false, true } do
    it("arrives whole on a socket, " .. (nonblock and "non-blocking" or "blocking"), function()
      local pair = assert(uv.socketpair("stream", nil, { nonblock = true }, { nonblock = nonblock }))
      local text = written_to(pair[1], pair[2], COUNT:format "print(i)")
      assert.is_true(text == expected, #text .. " bytes")
    end)
  end

  it("leaves a pipe that others share as it was found", function()
    local pipe = assert(uv.pipe({ nonblock = false }, { nonblock = false }))
    local child = assert(uv.spawn(process.program, { args = { "-e", "print(1) require('dockrun').sleep(5)" },
      stdio = { nil, pipe.write, 2 } }, function() end))
    assert.equal("1\n", uv.fs_read(pipe.read, 2))
    assert.is_false(is_nonblocking(pipe.write))
    child:kill "sigkill"
    child:close()
    assert(uv.fs_close(pipe.read) and uv.fs_close(pipe.write))
  end)

  it("is in order with what it writes on stderr, if both are one pipe", function()
    local result = shell([["$0" -e "$1" 2>&1]], "for i = 1, 3 do print(i) io.stderr:write('e', i, '\\n') end")
    assert.equal("1\ne1\n2\ne2\n3\ne3\n", result.stdout)
  end)

  it("is appended to a file that others write to", function()
    local result = shell([[f=$(mktemp); (echo first; "$0" -e "$1"; echo last) >"$f" 2>&1; cat "$f"; rm "$f"]],
      "print 'out' io.stderr:write 'err\\n'")
    assert.equal("first\nout\nerr\nlast\n", result.stdout)
  end)

  it("is an error if the disk is full", function()
    local result = shell([["$0" -e "$1" >/dev/full; echo $?]], "print 'x'")
    assert.equal("1\n", result.stdout)
    assert.matches("cannot write the results: No space left on device", result.stderr, 1, true)
  end)

  for what, code in pairs {
    ["in a loop"] = "while true do print(1) end",
    ["and sleeps"] = "while true do print(1) require('dockrun').sleep(0.01) end",
    ["in a coroutine of its own"] = "local d = require 'dockrun' d.spawn(function() while true do print(1) d.sleep(0.01) end end):await()",
    ["once more than is read"] = "print(1) require('dockrun').sleep(0.5) print(2)",
  } do
    it("ends it with 141, quietly, when the reader is gone: " .. what, function()
      local result = shell([["$0" -e "$1" | head -n 1; echo "${PIPESTATUS[0]}"]], code)
      assert.same({ "1\n141\n", "" }, { result.stdout, result.stderr })
    end)
  end

  it("lets it clean up when the reader is gone", function()
    local result = shell([["$0" -e "$1" | head -n 1; echo "${PIPESTATUS[0]}"]], [[
      local _ <close> = setmetatable({}, { __close = function()
        print "more"
        require("dockrun").sleep(0.05)
        io.stderr:write "cleaned\n"
      end })
      while true do print(1) end]])
    assert.same({ "1\n141\n", "cleaned\n" }, { result.stdout, result.stderr })
  end)
end)

describe("a descriptor that is closed at the start", function()
  for fd, redirection in pairs { [0] = "<&-", [1] = ">&-", [2] = "2>&-" } do
    it(("is /dev/null to the command: %d"):format(fd), function()
      local words = ([["$0" -e "$1" %s; echo "=$?"]]):format(redirection)
      local result = shell(words, "io.read() print 'out' io.stderr:write 'err' require('dockrun').sleep(0.01)")
      assert.same({ (fd == 1 and "" or "out\n") .. "=0\n", fd == 2 and "" or "err" }, { result.stdout, result.stderr })
    end)

    it(("is an error of a program that loads the library: %d"):format(fd), function()
      local build = process.program:match "^(.*)/[^/]+$"
      local words = ([[LD_PRELOAD=$(ldd "$0" | grep -o '/[^ ]*libasan[^ ]*') lua5.4 -e "$1" %s; echo "=$?"]]):format(redirection)
      local result = shell(words, ([[
        package.cpath = %q
        local ok, why = pcall(require, "dockrun.core")
        os.exit(not ok and why:find("file descriptor %d is closed; open /dev/null for it first", 1, true) and 42 or 1)
        ]]):format(build .. "/lua/?.so", fd))
      assert.equal("=42\n", result.stdout, result.stderr)
    end)
  end

  it("are all three /dev/null to the command", function()
    assert.equal("0\n", shell([["$0" version <&- >&- 2>&-; echo $?]]).stdout)
  end)
end)

describe("text of strangers", function()
  for _, case in ipairs {
    { "escape sequences", "a\27[31mb\7", [[a\x1b[31mb\x07]] },
    { "C1 control characters", "a\u{9b}31mb", [[a\u{9b}31mb]] },
    { "marks of direction", "a\u{202e}b\u{2066}", [[a\u{202e}b\u{2066}]] },
    { "bytes that are not UTF-8", "a\xff\xc3(\xed\xa0\x80", [[a\xff\xc3(\xed\xa0\x80]] },
    { "line breaks and tabs", "a\n\tb\r", [[a\x0a\x09b\x0d]] },
    { "nothing in text as it should be", "äöü 日本 🚀 \\x", "äöü 日本 🚀 \\x" },
  } do
    local what, text, safe = table.unpack(case)
    it("has its escapes shown: " .. what, function() assert.equal(safe, standard.safe(text)) end)
  end

  it("keeps its lines in text, and loses the rest where it is stripped", function()
    assert.equal("a\n\tb\\x1b", standard.safe("a\n\tb\27", "text"))
    assert.equal("a\n\tb[0m\u{fffd}", standard.safe("a\n\tb\27[0m\r\u{202e}\xff", "strip"))
  end)

  it("is safe in the error of a script", function()
    local result = process.run { "-e", [[error("bad \27[2J thing", 0)]] }
    assert.equal(1, result.code)
    assert.matches([[bad \x1b[2J thing]], result.stderr, 1, true)
    assert.is_nil(result.stderr:find("\27", 1, true))
  end)
end)

describe("a byte order mark", function()
  local jobs = require "spec.jobs"
  for ending, text in pairs {
    [".lua"] = "return job 'x' { task 't' { driver = 'docker', config = { image = 'b' } } }\r\n",
    [".json"] = '{"job":{"x":{"task":{"t":{"driver":"docker","config":{"image":"b"}}}}}}\r\n',
    [".hcl"] = 'job "x" {\r\n task "t" {\r\n driver = "docker"\r\n config { image = "b" }\r\n}\r\n}\r\n',
  } do
    it("is taken off a job file, and its lines may end with CRLF: " .. ending, function()
      local path, file = jobs.write("\xEF\xBB\xBF" .. text, ending)
      local _ <close> = file
      local result = process.run { "validate", path }
      assert.equal(0, result.code, result.stderr)
    end)
  end

  for ending, text in pairs { [".lua"] = "return { state_dir = '/x' }", [".json"] = '{"state_dir":"/x"}' } do
    it("is taken off a file of options: " .. ending, function()
      local path, file = jobs.write("\xEF\xBB\xBF" .. text, ending)
      local _ <close> = file
      assert.equal(0, process.run({ "--config", path, "version" }).code)
    end)
  end
end)

describe("the interpreter on stdin", function()
  for what, head in pairs {
    ["a #! line"] = "#!/usr/bin/env dockrun\n", ["a byte order mark"] = "\xEF\xBB\xBF", both = "\xEF\xBB\xBF#!x\r\n",
  } do
    it("takes a script with " .. what, function()
      local result = process.run({ "-", "word" }, { stdin = head .. "print(arg[1])\r\nerror('here')" })
      assert.equal("word\n", result.stdout)
      assert.matches(head:find "#" and "stdin:3: here" or "stdin:2: here", result.stderr, 1, true)
    end)
  end

  it("takes all of it from a non-blocking pipe that is slow", function()
    local result = shell([[(echo 'print(1)'; sleep 0.3; echo 'print(2)') | (python3 -c "$1"; exec "$0" -)]],
      "import fcntl, os; fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK)")
    assert.equal("1\n2\n", result.stdout)
  end)
end)
