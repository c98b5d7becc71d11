-- dockrun as an interpreter, driven as a child process; where `lua` does the same, it is asked what is right.
local dockrun = require "dockrun"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"

local BUILD, TOP = process.program:match "^(.*)/[^/]+$", assert(uv.fs_realpath ".")

describe("dockrun as an interpreter", function()
  local dir
  before_each(function() dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-script-XXXXXX")) end)
  after_each(function() pl_dir.rmtree(dir) end)

  local function write(name, text)
    local path = dir .. "/" .. name
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
    return path
  end

  -- A script that prints what it got.
  local SHOW = [[
    local keys = {}
    for i in pairs(arg) do keys[#keys + 1] = i end
    table.sort(keys)
    for _, i in ipairs(keys) do if i >= 0 then print(i, arg[i]) end end
    print(select("#", ...), ...)
  ]]

  local function same_as_lua(args, opts)
    opts = opts or {}
    local ours = process.run(args, opts)
    opts.program = "lua5.4"
    local its = process.run(args, opts)
    assert.same(
      { code = its.code, stdout = its.stdout, stderr = its.stderr:gsub("^lua5.4:", "dockrun:") },
      { code = ours.code, stdout = ours.stdout, stderr = ours.stderr })
    return ours
  end

  describe("finds its script", function()
    it("in a file, with arguments in `arg` and in `...`", function()
      local path = write("show.lua", SHOW)
      local result = same_as_lua { path, "a", "", "b c", "-e", "--", "run" }
      assert.equal("0\t" .. path .. "\n1\ta\n2\t\n3\tb c\n4\t-e\n5\t--\n6\trun\n6\ta\t\tb c\t-e\t--\trun\n", result.stdout)
    end)

    it("in a file whose name is a command's, or starts with a dash", function()
      for _, name in ipairs { "run", "-e" } do
        write(name, "print((...))")
        assert.equal("a\n", process.run({ "--", name, "a" }, { cwd = dir }).stdout)
      end
    end)

    it("on the command line", function()
      local result = process.run { "-e", "print(#arg, ...)", "a", "b" }
      assert.same({ 0, "2\ta\tb\n" }, { result.code, result.stdout })
    end)

    it("not on stdin if that cannot be read", function()
      local result = process.run({ "-c", '"$0" - </', process.program }, { program = "sh" })
      assert.same({ 1, "dockrun: cannot read stdin: Is a directory\n" }, { result.code, result.stderr })
    end)

    it("on stdin, named or not", function()
      local result = process.run({ "-", "a" }, { stdin = "print('in', ...)" })
      assert.same({ 0, "in\ta\n" }, { result.code, result.stdout })
      result = process.run({}, { stdin = "print('in', ...)" })
      assert.same({ 0, "in\n" }, { result.code, result.stdout })
    end)

    it("by its first line, run directly", function()
      local path = write("direct", "#!/usr/bin/env dockrun\nprint(arg[0], ...)\n")
      assert(uv.fs_chmod(path, tonumber("755", 8)))
      local result = process.run({ "x", "y" }, { program = path, env = { PATH = BUILD .. ":" .. os.getenv "PATH" } })
      assert.same({ 0, path .. "\tx\ty\n" }, { result.code, result.stdout })
    end)

    it("after options that are for the runtime", function()
      local result = process.run({ "--endpoint", "unix:///nowhere/x.sock", "-e",
        "print(require 'dockrun'.connect():endpoint(), ...)", "a" })
      assert.same({ 0, "unix:///nowhere/x.sock\ta\n" }, { result.code, result.stdout })
    end)
  end)

  describe("says as lua does", function()
    for what, text in pairs {
      ["an error, and where it came from"] = "local function inner() error 'boom' end\nlocal function outer() inner() end\nouter()",
      ["an error without a position"] = "error('boom', 0)",
      ["a runtime error"] = "local t = nil\nprint(t.x)",
      ["an error of a library"] = "string.rep()",
      ["an error that is a number"] = "error(42)",
      ["an error that is nil"] = "error(nil)",
      ["an error that is a table"] = "error {}",
      ["an error that tells its own text"] = "error(setmetatable({}, { __tostring = function() return 'own words' end }))",
      ["an error whose text is none"] = "error(setmetatable({}, { __tostring = function() return 1 end }))",
      ["an error that defends itself"] = "error(setmetatable({}, { __index = function() error 'hands off' end }))",
      ["a syntax error"] = "print 'never'\nlocal x = = 1",
      ["an error of required code"] = "package.path = '?.lua'\nrequire 'no_such_module_at_all'",
      ["nothing, where all is well"] = "print 'fine'\nreturn 7",
      ["nothing, where it exits"] = "io.stdout:write 'unflushed'\nos.exit(3)",
    } do
      it(what, function()
        local path = write("script.lua", text)
        same_as_lua({ path }, { env = { LUA_PATH = "?.lua", LUA_CPATH = "?.so", DOCKRUN_LUA_PATH = TOP .. "/lua" } })
      end)
    end

    it("that there is no such file", function()
      local result = same_as_lua { dir .. "/absent.lua" }
      assert.equal(1, result.code)
    end)

    it("what an error's own text fails with, or that it has none", function()
      local path = write("script.lua", "error(setmetatable({}, { __tostring = function() error 'worse' end }))")
      local result = process.run { path }
      assert.equal(1, result.code)
      assert.matches("^dockrun: %(error object is a table value%)\nstack traceback:", result.stderr)
    end)
  end)

  describe("refuses", function()
    for _, case in ipairs {
      { "-e without code", { "-e" }, "'-e' needs the code to run" },
      { "an unknown option", { "--no-such" }, "unknown option '--no-such'" },
      { "no script after --", { "--" }, "no script after '--'" },
    } do
      local what, args, message = table.unpack(case)
      it(what .. ", as bad usage", function()
        local result = process.run(args)
        assert.equal(2, result.code)
        assert.matches(message, result.stderr, 1, true)
      end)
    end

    it("to start where its Lua files do not load, and says what helps", function()
      assert(pl_dir.makepath(dir .. "/dockrun/cli"))
      write("dockrun/cli/init.lua", "half a file (")
      local result = process.run({ "-e", "" }, { env = { DOCKRUN_LUA_PATH = dir } })
      assert.equal(4, result.code)
      assert.matches("set DOCKRUN_LUA_PATH to the directory that holds dockrun/", result.stderr)
      assert.matches("dockrun/cli/init.lua", result.stderr, 1, true)
    end)
  end)

  describe("exits", function()
    for code, exit in pairs { [0] = "os.exit(0)", [5] = "os.exit(5)", [1] = "os.exit(false)" } do
      local closing = exit:gsub("%)$", ", true)")
      for _, where in ipairs {
        "%s", "require 'dockrun'.sleep(0) %s",
        "require 'dockrun'.spawn(function() %s end):await()",
        "coroutine.wrap(function() require 'dockrun'.sleep(0) %s end)()",
        "table.sort({ 2, 1 }, function() require 'dockrun'.sleep(0) %s end)",
        "require 'luv'.new_timer():start(0, 0, function() %s end) require 'dockrun'.sleep(5)",
        "local t = require 'luv'.new_timer() t:close() %s",
      } do
        it(("with %d by %s in: %s"):format(code, closing, where), function()
          for _, call in ipairs { exit, closing } do
            local result = process.run { "-e", "io.write 'buffered' " .. where:format(call) }
            assert.same({ code = code, stdout = "buffered", stderr = "" }, result)
          end
        end)
      end
    end

    it("with 0 where it ends, whatever it returns, and 1 where it fails", function()
      assert.equal(0, process.run({ "-e", "return 9" }).code)
      assert.equal(0, process.run({ "-e", "return print" }).code)
      assert.equal(1, process.run({ "-e", "error 'x'" }).code)
    end)

    it("with 1 for an error that merely has a signal's name in it", function()
      assert.equal(1, process.run({ "-e", "error { kind = 'failed', signal = 'SIGKILL' }" }).code)
    end)
  end)

  describe("hears", function()
    local BUSY, SLEEPS = "while true do end", "dockrun.sleep(60)"
    local IN_SORT = "table.sort({ 2, 1 }, function() dockrun.sleep(60) end)"
    local OTHER_IS_BUSY = "dockrun.spawn(function() while true do end end):await()"

    -- The script says that it is ready at the moment before it does what is to be interrupted.
    local function interrupted(code, signal)
      local child <close> = process.start { "-e", "local dockrun = require 'dockrun'\nio.stdout:setvbuf 'no'\n" .. code }
      child:wait_for "ready\n"
      dockrun.sleep(0.03)
      child:kill(signal)
      return child:wait()
    end

    for _, signal in ipairs { "SIGINT", "SIGTERM" } do
      for where, what in pairs { ["sleeps"] = SLEEPS, ["runs on and on"] = BUSY, ["waits where it cannot yield"] = IN_SORT } do
        it(signal .. " while it " .. where .. ": ends with 130 after its clean-up", function()
          local result = interrupted([[
            local guard <close> = setmetatable({}, { __close = function(_, err)
              dockrun.sleep(0.02)
              print("closed", err.kind, err.signal)
            end })
            print 'ready' ]] .. what, signal)
          assert.equal(130, result.code, result.stderr)
          assert.equal("ready\nclosed\tcancelled\t" .. signal .. "\n", result.stdout)
          assert.equal("dockrun: interrupted by " .. signal .. "\n", result.stderr)
        end)

        it(signal .. " while it " .. where .. ": may catch that and go on", function()
          local result = interrupted(([[
            local ok, err = pcall(function() print 'ready' %s end)
            dockrun.sleep(0.01)
            print(ok, err)]]):format(what), signal)
          assert.same({ code = 0, stdout = "ready\nfalse\tinterrupted by " .. signal .. "\n", stderr = "" }, result)
        end)
      end
    end

    -- One call of C, during which no instruction of Lua runs: such as a match that backtracks for years.
    for _, signal in ipairs { "SIGINT", "SIGTERM" } do
      it(signal .. " inside of a call that takes for ever: it ends by another one, seconds later", function()
        local child <close> = process.start { "-e", [[
          while true do  -- the first signal may come before the call
            pcall(function() print 'ready' io.stdout:flush() table.move({}, 1, math.maxinteger - 1, 2) end)
          end]] }
        child:wait_for "ready\n"
        local started = dockrun.now()
        while not child.exit and dockrun.now() < started + 60 do
          child:kill(signal)
          dockrun.sleep(0.05)
        end
        assert.is_true(dockrun.now() - started >= 2)  -- a second Ctrl-C has a meaning of its own
        assert.equal(signal, child:wait().signal)
      end)
    end

    it("a signal while it reads JSON", function()
      local result = interrupted([[
        local text = dockrun.json.encode { id = ("0123456789"):rep(20000) }
        print 'ready'
        while true do dockrun.json.decode(text) end]], "SIGINT")
      assert.equal(130, result.code, result.stderr)
    end)

    it("a signal in a generator that runs on and on", function()
      local result = interrupted("for _ in coroutine.wrap(function() print 'ready' " .. BUSY .. " end) do end", "SIGINT")
      assert.equal(130, result.code, result.stderr)
    end)

    it("a signal while another fiber does not let it run", function()
      local result = interrupted("print 'ready' " .. OTHER_IS_BUSY, "SIGINT")
      assert.equal(130, result.code, result.stderr)
    end)

    it("a signal while another fiber runs, in the script alone", function()
      local child <close> = process.start { "-e", [[
        local dockrun = require "dockrun"
        io.stdout:setvbuf "no"
        local round = 0
        local worker = dockrun.spawn(function()
          local told, sum = 0, 0
          while round < 10 or told < round do
            if told < round then
              told = round
              print("ready " .. round)
            end
            for i = 1, 300000 do
              sum = sum + 1
              sum = sum - 1
            end
            dockrun.sleep(0)
          end
          return "undisturbed"
        end)
        for i = 1, 10 do
          round = i
          pcall(dockrun.sleep, 60)
        end
        print(worker:await())]] }
      for i = 1, 10 do
        child:wait_for("ready " .. i .. "\n")
        child:kill "SIGINT"
      end
      assert.same({ "undisturbed\n", "", 0 }, { child:wait().stdout:match "[^\n]*\n$", child.stderr, child.result.code })
    end)

    it("a second signal, which ends the clean-up", function()
      local child <close> = process.start { "-e", [[
        local dockrun = require "dockrun"
        io.stdout:setvbuf "no"
        pcall(function()
          print "ready"
          dockrun.sleep(60)
        end)
        print "cleaning"
        dockrun.sleep(60)]] }
      child:wait_for "ready\n"
      child:kill "SIGINT"
      child:wait_for "cleaning\n"
      child:kill "SIGINT"
      assert.equal(130, child:wait().code)
    end)

    it("of a closed pipe by an error of the write, and not by its end", function()
      local code = ([[for _ = 1, 1000 do
          local ok, err = io.stdout:write(('x'):rep(65536))
          if not ok then io.stderr:write(err) os.exit(7) end
        end]]):gsub("\n%s*", " ")
      local result = process.run({ "-c", '"$0" -e "$1" | true; echo "${PIPESTATUS[0]}"', process.program, code }, { program = "bash" })
      assert.equal("7\n", result.stdout)
      assert.equal("Broken pipe", result.stderr)
    end)
  end)

  describe("finds its Lua files", function()
    local WHERE = { "-e", "print(package.searchpath('dockrun', package.path)) print(require 'dockrun'.version)" }

    local function found(program, opts)
      opts = opts or {}
      opts.program = program
      opts.env = opts.env or { DOCKRUN_LUA_PATH = false, LUA_PATH = false }
      local result = process.run(WHERE, opts)
      assert.equal(0, result.code, result.stderr)
      local path, version = result.stdout:match "^(.-)\n(.-)\n$"
      assert.equal(dockrun.version, version)
      return assert(uv.fs_realpath(path))
    end

    it("beside the build tree, from any directory", function()
      assert.equal(TOP .. "/lua/dockrun/init.lua", found(process.program, { cwd = dir }))
    end)

    it("through a symbolic link, along PATH as well", function()
      assert(uv.fs_symlink(process.program, dir .. "/dockrun"))
      assert.equal(TOP .. "/lua/dockrun/init.lua", found(dir .. "/dockrun", { cwd = "/" }))
      assert.equal(TOP .. "/lua/dockrun/init.lua",
        found("dockrun", { cwd = "/", env = { DOCKRUN_LUA_PATH = false, PATH = dir .. ":" .. os.getenv "PATH" } }))
    end)

    it("in DOCKRUN_LUA_PATH first, in its order, and the rest where they always are", function()
      assert(pl_dir.makepath(dir .. "/a"))
      assert(pl_dir.makepath(dir .. "/b/dockrun"))
      write("a/mine.lua", "return 'mine of a'")
      write("b/mine.lua", "return 'mine of b'")
      write("b/dockrun/duration.lua", "return 'events of b'")
      local result = process.run({ "-e", "print(require 'mine', require 'dockrun.duration', type(require 'dockrun'.spawn))" },
        { env = { DOCKRUN_LUA_PATH = dir .. "/a:" .. dir .. "/b" }, cwd = "/" })
      assert.equal("mine of a\tevents of b\tfunction\n", result.stdout, result.stderr)
    end)

    it("where they are installed", function()
      local prefix = dir .. "/usr"
      local installed = process.run({ "--install", BUILD, "--prefix", prefix }, { program = "cmake" })
      assert.equal(0, installed.code, installed.stderr)
      local moved = dir .. "/moved"
      assert(uv.fs_rename(prefix, moved))
      assert.equal(moved .. "/share/dockrun/lua/dockrun/init.lua", found(moved .. "/bin/dockrun", { cwd = "/" }))
      local result = process.run({ "version" }, { program = moved .. "/bin/dockrun", cwd = "/", env = { DOCKRUN_LUA_PATH = false } })
      assert.same({ 0, "dockrun " .. dockrun.version .. "\n" }, { result.code, result.stdout })
      for _, file in ipairs { "include/dockrun.h", "share/dockrun/scripts/top.lua" } do
        assert.is_truthy(uv.fs_stat(moved .. "/" .. file), file)
      end
    end)
  end)
end)
