-- An engine with arbitrary answers: dockrun reports what is wrong, within limits of time and memory, and never crashes.
local dockrun = require "dockrun"
local engines = require "spec.faults.engine"
local jobs = require "spec.jobs"
local many = require "spec.faults.many"
local process = require "spec.process"
local pl_dir = require "pl.dir"
local uv = require "luv"
local tables = require "dockrun.util.tables"

local WIDTH = 6                         -- runs in parallel
local SANITIZED = many.is_sanitized()
local ALL = os.getenv "FAULTS" ~= nil -- every answer to every call, instead of every answer to a few calls

describe("an engine's answer", function()
  local job_file, file, state_dir

  setup(function()
    state_dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-hostile-XXXXXX"))
    job_file, file = jobs.write(jobs.text { name = "hostile", image = "busybox:1", command = "true" })
  end)

  teardown(function()
    pl_dir.rmtree(state_dir)
    local _ <close> = file
  end)

  local function peak_of(pid)
    local status <close> = io.open(("/proc/%d/status"):format(pid))
    return status and tonumber((status:read "a" or ""):match "VmHWM:%s*(%d+)")
  end

  local TIMEOUT = SANITIZED and 4 or 3 -- seconds, for calls that hang
  local MOST = SANITIZED and 2000 or 400 -- MiB

  local numbers = 0

  -- How dockrun's reaction to one answer is wrong: nil, or a sentence.
  local function flaw(call, answer)
    numbers = numbers + 1
    local dir = ("%s/%d"):format(state_dir, numbers)
    local e <close> = engines.start { [call] = answer }
    local child <close> = process.start({
      "run", "--endpoint", e.endpoint, "--state-dir", dir, "--set", "docker.timeout=" .. TIMEOUT,
      "--set", "docker.watch_interval=0.2", job_file,
    })
    local peak, since, asked, signals = 0, dockrun.now(), nil, 0
    while not child.result do
      peak = math.max(peak, peak_of(child.pid) or 0)
      if peak > MOST * 1024 then return ("%d MiB of memory"):format(peak // 1024) end
      local elapsed = dockrun.now() - since
      if elapsed > 180 then return "it does not end: " .. child.stderr end
      -- A container that cannot be inspected may still run: dockrun watches it until a signal stops the job.
      asked = asked or e.asked[call] and dockrun.now()
      if call == "container_inspect" and asked and dockrun.now() - asked > 2.5 + 4 * signals then
        signals = signals + 1
        child:kill "SIGINT"
      end
      pcall(child.wait, child, 0.05)
    end
    local result = child.result
    local said = ("code %s: %s"):format(result.code or result.signal, result.stderr)
    if result.signal == "SIGINT" and signals > 1 then return nil end  -- the signal came after the end
    if not ({ [0] = true, [1] = true, [3] = true, [130] = signals > 0 })[result.code] then return said end
    if result.stderr:find "traceback" or result.stderr:find "a fiber failed" or result.stderr:find "Sanitizer" then return said end
    local explained = result.stderr:find "error: %S+" or result.stderr:find ": exited "
    if (result.code == 1 or result.code == 3) and not explained then return said end
    if not e.asked[call] then return "it never asked: " .. said end
  end

  -- Tries every answer, several in parallel; raises an error with every flaw.
  local function try(cases)
    local failures, at = {}, 0
    local function work()
      while cases[at + 1] do
        at = at + 1
        local case = cases[at]
        local ok, why = pcall(flaw, case.call, case.answer)
        if why or not ok then failures[#failures + 1] = ("%s, %s: %s"):format(case.call, case.what, why) end
      end
    end
    local workers = {}
    for i = 1, WIDTH do workers[i] = work end
    dockrun.all(workers)
    if #failures > 0 then error(("%d of %d:\n%s"):format(#failures, #cases, table.concat(failures, "\n")), 0) end
  end

  local function for_all_calls(answers)
    local whats, cases = {}, {}
    for what in pairs(answers) do whats[#whats + 1] = what end
    table.sort(whats)
    for i, what in ipairs(whats) do
      for k, row in ipairs(engines.calls) do
        if ALL or (i + k) % (#engines.calls // 2) == 0 then
          cases[#cases + 1] = { call = row[1], what = what, answer = answers[what] }
        end
      end
    end
    try(cases)
  end

  local function endless(head, piece)
    return function()
      local text = head
      return function()
        local now = text
        text = piece
        return now
      end
    end
  end

  local CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
  local answer = engines.answer

  it("may have an invalid head", function()
    for_all_calls {
      ["no HTTP"] = { "hello\r\n\r\nhello", close = true },
      ["no status"] = { "HTTP/1.1 abc\r\n\r\n", close = true },
      ["status 999"] = answer("{}", "999 What"),
      ["status 0"] = answer("{}", "000 None"),
      ["version 9"] = { "HTTP/9.9 200 OK\r\n\r\n{}", close = true },
      ["HTTP/1.0"] = { "HTTP/1.0 200 OK\r\n\r\n{}", close = true },
      ["a redirect"] = { "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" },
      ["a line without a colon"] = { "HTTP/1.1 200 OK\r\nnothing\r\n\r\n{}", close = true },
      ["bytes above 127"] = { "HTTP/1.1 200 \255\254\r\n\255\255: \0\1\r\n\r\n{}", close = true },
      ["an unrequested upgrade"] = { "HTTP/1.1 101 Switching\r\nUpgrade: tcp\r\n\r\n{}", close = true },
    }
  end)

  it("may have headers without end", function()
    for_all_calls {
      ["one of a MiB"] = answer("{}", "200 OK\r\nX-Long: " .. ("a"):rep(1024 * 1024)),
      ["100000 of them"] = answer("{}", "200 OK" .. ("\r\nX-Many: 1"):rep(100000)),
      ["no end"] = endless("HTTP/1.1 200 OK\r\n", ("X-More: 1\r\n"):rep(1000)),
      ["one without end"] = endless("HTTP/1.1 200 OK\r\nX-More: ", ("a"):rep(65536)),
      ["100 Continue without end"] = endless("", ("HTTP/1.1 100 Continue\r\n\r\n"):rep(1000)),
    }
  end)

  it("may end at any byte", function()
    for_all_calls {
      ["at once"] = { "", close = true },
      ["in its status line"] = { "HTTP/1.1 2", close = true },
      ["in its headers"] = { "HTTP/1.1 200 OK\r\nContent-Le", close = true },
      ["in its body"] = { "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", close = true },
      ["in a chunk"] = { CHUNKED .. "64\r\n{", close = true },
      ["between two chunks"] = { CHUNKED .. "2\r\n{}\r\n", close = true },
    }
  end)

  it("may have invalid lengths", function()
    local function length(text) return { ("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n{}"):format(text), close = true } end
    for_all_calls {
      ["negative"] = length "-1", ["no number"] = length "many", ["past 64 bits"] = length "99999999999999999999999",
      ["two"] = length "2\r\nContent-Length: 3",
      ["a chunk of no number"] = { CHUNKED .. "zz\r\n{}\r\n0\r\n\r\n", close = true },
      ["a negative chunk"] = { CHUNKED .. "-2\r\n{}\r\n0\r\n\r\n", close = true },
      ["a chunk past 64 bits"] = { CHUNKED .. "fffffffffffffffff\r\n{}", close = true },
      ["a chunk without its line break"] = { CHUNKED .. "2\r\n{}0\r\n\r\n", close = true },
    }
  end)

  it("may have a body without end", function()
    for_all_calls {
      ["of chunks"] = endless(CHUNKED, ("10000\r\n%s\r\n"):format(("a"):rep(65536))),
      ["of spaces"] = endless("HTTP/1.1 200 OK\r\n\r\n", (" "):rep(65536)),
      ["of documents"] = endless("HTTP/1.1 200 OK\r\n\r\n", ("{}\n"):rep(20000)),
      ["of a refusal"] = endless("HTTP/1.1 500 No\r\n\r\n", ("a"):rep(65536)),
    }
  end)

  it("may be something other than JSON, nested too deeply, or not text", function()
    for_all_calls {
      ["empty"] = answer "", ["a word"] = answer "hello", ["half"] = answer '{"Id":', ["null"] = answer "null", ["false"] = answer "false",
      ["a text"] = answer '"text"', ["a number"] = answer "1e999", ["a list of nothing"] = answer "[null,false,1]",
      ["deep lists"] = answer(("["):rep(100000) .. ("]"):rep(100000)), ["lists without end"] = answer(("["):rep(100000)),
      ["deep objects"] = answer(('{"a":'):rep(100000) .. "1" .. ("}"):rep(100000)),
      ["just deep enough"] = answer(('{"a":'):rep(990) .. "1" .. ("}"):rep(990)),
      ["a text of 10 MB"] = answer('{"Id":"' .. ("x"):rep(10000000) .. '"}'),
      ["not UTF-8"] = answer '{"Id":"\255\254\192\128","message":"\237\160\128"}', ["NUL"] = answer '{"Id":"a\0b"}',
      ["lone surrogates"] = answer [[{"Id":"\ud800","message":"\udfff\u0000"}]],
    }
  end)

  it("may be a refusal of any kind", function()
    for_all_calls {
      ["an invalid message"] = answer('{"message":{"a":1}}', "500 No"), ["null"] = answer('{"message":null}', "409 No"),
      ["not UTF-8"] = answer('{"message":"\255\254"}', "500 No"), ["nothing"] = answer("", "503 No"),
      ["a page"] = answer("<html>", "404 No"),
      ["a long one"] = answer('{"message":"' .. ("long "):rep(100000) .. '"}', "500 No"),
      ["for who may not"] = answer('{"message":"denied"}', "403 No"),
    }
  end)

  it("is printed as JSON in UTF-8, whatever it was", function()
    local e <close> = engines.start { container_create = answer('{"message":"a\255b"}', "400 No") }
    local result = process.run { "run", "--json", "--endpoint", e.endpoint, "--state-dir", state_dir .. "/utf8", job_file }
    assert.truthy(utf8.len(result.stdout))
    assert.truthy(result.stdout:find "a\u{fffd}b", result.stdout)
  end)

  it("may have fields of other types, or lack them", function()
    local wrong = {
      string = { 7, { a = 1 } }, number = { "seven", 1e300, -1 }, boolean = { "yes", 0 }, table = { "text", false, 3 },
    }
    local cases = {}
    for call, document in pairs(engines.documents) do
      local function mutate(node, path, set)
        for key, value in pairs(node) do
          local at = ("%s.%s"):format(path, key)
          local function case(what, other)
            local copy = tables.copy_data(document)
            set(copy)[key] = other
            cases[#cases + 1] = { call = call, what = at .. " " .. what, answer = answer(dockrun.json.encode(copy)) }
          end
          case("absent", nil)
          for _, other in ipairs(wrong[type(value)]) do case("= " .. tostring(other), other) end
          if type(value) == "table" then
            mutate(value, at, function(copy) return set(copy)[key] end)
          end
        end
      end
      mutate(document, "it", function(copy) return copy end)
    end
    if not ALL then
      local some = {}
      for i = 1, #cases, 3 do some[#some + 1] = cases[i] end
      cases = some
    end
    for what, list in pairs {
      number = "[7]", text = '["x"]', ["empty object"] = "[{}]", ["wrong fields"] = '[{"Id":7,"Labels":[1],"Ports":3}]',
    } do
      cases[#cases + 1] = { call = "container_list", what = "a list with a " .. what, answer = answer(list) }
    end
    try(cases)
  end)

  it("may stream invalid events", function()
    local cases = {}
    for what, line in pairs {
      ["a number"] = "7", ["null"] = "null", ["false"] = "false", ["a text"] = '"x"', ["a list"] = "[1,2]", ["nothing known"] = "{}",
      ["an invalid actor"] = '{"Type":"container","Action":"die","Actor":7}', ["an invalid action"] =
        '{"Action":{"a":1},"Actor":{"ID":"' .. ("c"):rep(64) .. '","Attributes":3}}',
      ["invalid attributes"] = '{"Action":"die","Actor":{"ID":"' .. ("c"):rep(64) .. '","Attributes":{"exitCode":{}}}}',
      ["an invalid ID"] = '{"Action":"die","Actor":{"ID":{},"Attributes":{}}}', ["no JSON"] = "hello", ["not UTF-8"] = '{"a":"\255"}',
      ["deep"] = ("["):rep(100000), ["a long line"] = '{"a":"' .. ("x"):rep(5000000) .. '"}', ["an invalid time"] = '{"timeNano":-1}',
    } do
      cases[#cases + 1] = { call = "events", what = what, answer = CHUNKED .. ("%x\r\n%s\n\r\n"):format(#line + 1, line) }
    end
    try(cases)
  end)

  it("may have invalid log frames", function()
    local head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
    local cases = {}
    for what, frames in pairs {
      ["an unknown stream"] = "\9\0\0\0\0\0\0\1x", ["stdin"] = "\0\0\0\0\0\0\0\1x", ["the engine's error"] = "\3\0\0\0\0\0\0\1x",
      ["a negative length"] = "\1\0\0\0\255\255\255\255x", ["invalid padding"] = "\1\1\1\1\0\0\0\1x", ["half a head"] = "\1\0\0",
      ["no bytes"] = ("\1\0\0\0\0\0\0\0"):rep(10000), ["text"] = "hello, world\n", ["less than it says"] = "\1\0\0\0\0\0\0\9x",
    } do
      cases[#cases + 1] = { call = "container_logs", what = what, answer = { head .. frames, close = true } }
    end
    try(cases)
  end)
end)
