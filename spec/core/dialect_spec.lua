-- Loaded into a Lua that is not 5.4, dockrun says so; loaded as a host program wants it, it finds its modules.
local hosts = require "spec.host"

describe("dockrun", function()
  local installed, lua, library

  setup(function()
    installed = hosts.install()
    lua, library = installed.prefix .. "/share/lua/5.4/?.lua", installed.libs .. "/libdockrun.so"
  end)
  teardown(function() installed:close() end)

  local function run(program, args, env)
    local all = installed:lua_environment()
    for name, value in pairs(env or {}) do all[name] = value end
    return hosts.run(program, args, all)
  end

  for program, name in pairs { luajit = "LuaJIT", ["lua5.1"] = "Lua 5.1", ["lua5.3"] = "Lua 5.3" } do
    it("says that it is in " .. name, function()
      local policy = installed.prefix .. "/share/dockrun/lua"
      for what, path in pairs { dockrun = lua, ["dockrun.core"] = "", ["dockrun.init"] = policy .. "/?.lua" } do
        local result = run(program, { "-e", ("print(pcall(require, '%s'))"):format(what) }, { LUA_PATH = path })
        assert.equal(0, result.code, result.stderr)
        assert.matches("^false\tdockrun needs Lua 5.4, got " .. name .. ".*; run it with lua5.4", result.stdout, what)
      end
    end)
  end

  it("opens nothing where its calls would go to another Lua", function()
    local result = run("luajit", { "-e", ([[
      local ffi = require "ffi"
      ffi.cdef "void *dockrun_open(char *why, size_t size)"
      local why = ffi.new "char[256]"
      print(ffi.load "%s".dockrun_open(why, 256) == nil, ffi.string(why))]]):format(library) })
    assert.equal(0, result.code, result.stderr)
    assert.matches("^true\tdockrun needs Lua 5.4, got LuaJIT", result.stdout)
  end)

  it("finds its modules in C where the host has loaded it with RTLD_LOCAL", function()
    local result = run("python3", { "-c", [[
import ctypes, sys
library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_LOCAL)
library.dockrun_open.restype = ctypes.c_void_p
why = ctypes.create_string_buffer(256)
runtime = ctypes.c_void_p(library.dockrun_open(why, 256))
words = (ctypes.c_char_p * 3)(b"dockrun", b"-e",
  b"for _, name in ipairs { 'lpeg', 'cjson', 'rex_pcre2' } do print(type(require(name))) end")
print(why.value, library.dockrun_run(runtime, 3, words))
library.dockrun_close(runtime)
]], library }, { PYTHONUNBUFFERED = "1" })
    assert.same({ 0, "table\ntable\ntable\nb'' 0\n", "" }, { result.code, result.stdout, result.stderr })
  end)
end)
