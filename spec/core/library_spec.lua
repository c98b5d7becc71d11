-- dockrun inside of other programs: an installed tree that was moved, a host program in C, a plain lua5.4.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"

local BUILD = process.program:match "^(.*)/[^/]+$"

-- Of the sanitizers' build, whose library wants to be the first in the process.
local function sanitized()
  local cache <close> = assert(io.open(BUILD .. "/CMakeCache.txt"))
  return cache:read("a"):find "DOCKRUN_SANITIZE:BOOL=ON" ~= nil
end

describe("an installed dockrun", function()
  local dir, prefix, libs, preload, flags, endpoint

  local function run(program, args, env, cwd)
    local all = { DOCKRUN_LUA_PATH = false, LUA_PATH = false, LUA_CPATH = false, LUA_INIT = false }
    for name, value in pairs(env or {}) do all[name] = value end
    return process.run(args, { program = program, env = all, cwd = cwd or "/" })
  end

  local function succeed(...)
    local result = run(...)
    assert.equal(0, result.code, result.stdout .. result.stderr)
    return result.stdout
  end

  setup(function()
    dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-library-XXXXXX"))
    succeed("cmake", { "--install", BUILD, "--prefix", dir .. "/made" })
    prefix = dir .. "/moved"
    assert(uv.fs_rename(dir .. "/made", prefix))
    libs = succeed("find", { prefix, "-name", "libdockrun.so" }):match "^(.*)/libdockrun.so\n$"
    flags = {}
    if sanitized() then
      preload = succeed("gcc", { "-print-file-name=libasan.so" }):gsub("\n", "")
      flags = { "-fsanitize=address,undefined" }
    end
    local shared = engines.shared()
    endpoint = shared.endpoint
  end)

  teardown(function() pl_dir.rmtree(dir) end)

  it("has its script, its library, its header and its Lua files", function()
    assert.equal("dockrun " .. dockrun.version .. "\n", succeed(prefix .. "/bin/dockrun", { "version" }))
    local found = succeed(prefix .. "/bin/dockrun", { "-e", "print(package.searchpath('dockrun', package.path))" })
    assert.equal(prefix .. "/share/dockrun/lua/dockrun/init.lua", uv.fs_realpath(found:sub(1, -2)))
    assert.equal("1.41\n", succeed(prefix .. "/bin/dockrun", {
      "-e", "local e = require 'dockrun'.connect { endpoint = ... } assert(e:info()) print(e:api())", endpoint,
    }))
    local top = prefix .. "/share/dockrun/scripts/top.lua"
    assert.is_true(uv.fs_access(top, "X"))
    assert.matches("NAME", succeed(prefix .. "/bin/dockrun", { "--endpoint", endpoint, top, "-n", "1" }))
  end)

  describe("in a host program", function()
    local HOST = [[
      #include <dockrun.h>
      #include <errno.h>
      #include <lauxlib.h>
      #include <signal.h>
      #include <stdio.h>
      #include <string.h>

      static int l_double(lua_State *L) {
        lua_pushinteger(L, 2 * luaL_checkinteger(L, 1));
        return 1;
      }

      static int show(dockrun *d, const char *code, const char *argument) {
        lua_State *L = dockrun_lua(d);
        int top = lua_gettop(L);
        if (luaL_loadstring(L, code) != LUA_OK) return puts(lua_tostring(L, -1)), 9;
        lua_pushstring(L, argument);
        int status = dockrun_call(d, 1);
        if (status == LUA_OK)
          for (int i = top + 1; i <= lua_gettop(L); i++) printf("%s\n", luaL_tolstring(L, i, NULL)), lua_pop(L, 1);
        else
          printf("status %d: %s, %s\n", status, luaL_tolstring(L, top + 1, NULL),
                 strstr(lua_tostring(L, top + 2), "traceback") ? "traced" : "not traced");
        lua_settop(L, top);
        return status;
      }

      int main(int argc, char **argv) {
        char why[256];
        dockrun *d = dockrun_open(why, sizeof why), *other = dockrun_open(why, sizeof why);
        if (!d || !other) return puts(why), 1;
        puts(dockrun_version());
        lua_register(dockrun_lua(d), "double", l_double);
        show(d, "return double(21), nil, (...)", "given");
        show(d, "local e = assert(require 'dockrun'.connect { endpoint = ... }) return assert(e:version()).ApiVersion", argv[1]);
        show(d, "local r = require 'dockrun' return r.spawn(function() r.sleep(0.01) return 'fiber' end):await()", NULL);
        show(d, "require 'dockrun'.spawn(function() local c <close> = setmetatable({}, {__close = function() print 'cleaned' end})"
                " require 'dockrun'.sleep(60) end) require 'dockrun'.sleep(0)", NULL);
        show(d, "error 'boom'", NULL);
        show(d, "error({})", NULL);
        show(d, "return ('x'):rep(1 << 29)", NULL);
        show(d, "return ('x'):rep(1 << 40)", NULL);
        show(d, "require 'dockrun'.queue():pop()", NULL);
        show(other, "return double", NULL);
        // Outside of a fiber a primitive runs the loop until it is done.
        if (luaL_dostring(dockrun_lua(d), "require 'dockrun'.sleep(0.01) return 'slept'") == LUA_OK)
          puts(lua_tostring(dockrun_lua(d), -1));
        char *words[] = {"dockrun", "-e", "print(...) os = nil error 'code'", "word"};
        fflush(stdout);
        printf("run %d\n", dockrun_run(other, 4, words));
        printf("catch %d\n", dockrun_catch_signals(d));
        printf("catch %d\n", dockrun_catch_signals(other) == -EBUSY);
        show(d, "require 'luv'.kill(require 'luv'.os_getpid(), 'sigint') require 'dockrun'.sleep(60)", NULL);
        dockrun_close(NULL);
        dockrun_close(other);
        dockrun_close(d);
        struct sigaction now;
        sigaction(SIGINT, NULL, &now);
        printf("restored %d\n", now.sa_handler == SIG_DFL);
        return argc - 2;
      }
    ]]

    it("compiles by pkg-config, runs, and leaves nothing behind", function()
      local source = dir .. "/host.c"
      do
        local file <close> = assert(io.open(source, "w"))
        file:write(HOST)
      end
      local words = succeed("pkg-config", { "--cflags", "--libs", "dockrun" }, { PKG_CONFIG_PATH = libs .. "/pkgconfig" })
      local args = { "-Wall", "-Werror", "-o", dir .. "/host", source, "-Wl,-rpath," .. libs, table.unpack(flags) }
      for word in words:gmatch "%S+" do args[#args + 1] = word end
      succeed("gcc", args)
      local result = run(dir .. "/host", { endpoint })
      assert.equal([[
]] .. dockrun.version .. [[

42
nil
given
1.41
fiber
cleaned
status 2: [string "error 'boom'"]:1: boom, traced
status 2: table, traced
status 2: not enough memory, not traced
status 2: [string "return ('x'):rep(1 << 40)"]:1: resulting string too large, traced
status 2: deadlock: waiting, but no timer, connection or fiber is pending, traced
nil
slept
word
run 1
catch 0
catch 1
status 2: interrupted by SIGINT, traced
restored 1
]], (result.stdout:gsub("table: 0x%x+", "table")), result.stderr)
      assert.equal(0, result.code, result.stderr)
      assert.matches("^dockrun: %(command line%):1: code\n", result.stderr)
    end)
  end)

  describe("in a plain lua5.4", function()
    local function lua(code, ...)
      return run("lua5.4", { "-e", code, ... }, {
        LUA_PATH = prefix .. "/share/lua/5.4/?.lua;;", LUA_CPATH = libs .. "/lua/5.4/?.so;;", LD_PRELOAD = preload or false,
        ASAN_OPTIONS = "detect_leaks=0", -- of an interpreter that is not ours
      })
    end

    it("is required by its name, and its primitives run the loop", function()
      local result = lua([[
        local dockrun = require "dockrun"
        local engine = assert(dockrun.connect { endpoint = "]] .. endpoint .. [[" })
        print(engine:version().ApiVersion)
        local order = {}
        local a = dockrun.spawn(function() dockrun.sleep(0.05) order[#order + 1] = "a" end)
        local b = dockrun.spawn(function() dockrun.sleep(0.01) order[#order + 1] = "b" end)
        a:await() b:await()
        print(table.concat(order))
        for event in assert(engine:events { since = 0, ["until"] = os.time() }) do assert(event.Type) end
        print(select(2, pcall(function() dockrun.queue():pop() end)))
        print(dockrun.version)]])
      assert.equal("", result.stderr)
      assert.equal("1.41\nba\n(command line):10: deadlock: waiting, but no timer, connection or fiber is pending\n"
        .. dockrun.version .. "\n", result.stdout)
      assert.equal(0, result.code)
    end)

    it("keeps luv alive when the fiber that required it first has ended", function()
      local result = lua [[
        require "dockrun.core"
        local runtime = require "dockrun.core.runtime"
        runtime.spawn(function() require "luv" end):await()
        collectgarbage()
        collectgarbage()
        local timer, fired = require "luv".new_timer(), 0
        timer:start(0, 1, function()
          fired = fired + 1
          if fired == 50 then timer:close() end
        end)
        while fired < 50 do runtime.sleep(0.001) end
        print(fired)]]
      assert.same({ 0, "50\n", "" }, { result.code, result.stdout, result.stderr })
    end)

    it("says so where luv is there already, with a loop of its own", function()
      local result = lua [[require "luv" require "dockrun"]]
      assert.equal(1, result.code)
      assert.matches("luv is loaded already, with a loop of its own: require dockrun first", result.stderr, 1, true)
    end)
  end)
end)
