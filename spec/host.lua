-- An installed dockrun, and host programs that use it.
--
--   local installed <close> = host.install()
--   local result = installed:run_c([[int main(void) { … }]], { "argument" })
--   assert.equal("…", result.stdout)
local pl_dir = require "pl.dir"
local process = require "spec.process"
local uv = require "luv"

local M = {}

local BUILD = process.program:match "^(.*)/[^/]+$"

---@class Installed
---@field dir string     for files of the spec
---@field prefix string
---@field libs string    the directory that holds libdockrun.so
---@field preload? string  the sanitizers' library, which must be loaded first in a process that was built without it
local Installed = {}
Installed.__index = Installed

-- Set in a build with sanitizers.
local function sanitized()
  local cache <close> = assert(io.open(BUILD .. "/CMakeCache.txt"))
  return cache:read("a"):find "DOCKRUN_SANITIZE:BOOL=ON" ~= nil
end

--- Runs a program without this process's settings for the search path of Lua files.
---@param program string
---@param args string[]
---@param env? table<string, string|false>
---@return ProcessResult
function M.run(program, args, env)
  local all = { DOCKRUN_LUA_PATH = false, LUA_PATH = false, LUA_CPATH = false, LUA_INIT = false }
  for name, value in pairs(env or {}) do all[name] = value end
  return process.run(args, { program = program, env = all, cwd = "/", timeout = 120 })
end

local function succeed(...)
  local result = M.run(...)
  assert(result.code == 0, result.stdout .. result.stderr)
  return result.stdout
end

---@return Installed
function M.install()
  local dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-host-XXXXXX"))
  local self = setmetatable({ dir = dir, prefix = dir .. "/usr", flags = {} }, Installed)
  succeed("cmake", { "--install", BUILD, "--prefix", self.prefix })
  self.libs = succeed("find", { self.prefix, "-name", "libdockrun.so" }):match "^(.*)/libdockrun.so\n$"
  if sanitized() then
    self.preload = succeed("gcc", { "-print-file-name=libasan.so" }):gsub("\n", "")
    self.flags = { "-fsanitize=address,undefined" }
  end
  return self
end

--- Compiles a host program by pkg-config and runs it.
---@param source string  C
---@param args? string[]
---@param env? table<string, string|false>
---@return ProcessResult
function Installed:run_c(source, args, env)
  local path = self.dir .. "/host.c"
  do
    local file <close> = assert(io.open(path, "w"))
    file:write(source)
  end
  local words = succeed("pkg-config", { "--cflags", "--libs", "dockrun" }, { PKG_CONFIG_PATH = self.libs .. "/pkgconfig" })
  local all = { "-Wall", "-Werror", "-D_GNU_SOURCE", "-o", self.dir .. "/host", path, "-Wl,-rpath," .. self.libs,
    table.unpack(self.flags) }
  for word in words:gmatch "%S+" do all[#all + 1] = word end
  succeed("gcc", all)
  return M.run(self.dir .. "/host", args or {}, env)
end

--- The environment in which another interpreter finds the installed dockrun.
---@return table<string, string|false>
function Installed:lua_environment()
  return {
    LUA_PATH = self.prefix .. "/share/lua/5.4/?.lua;;", LUA_CPATH = self.libs .. "/lua/5.4/?.so;;",
    LD_PRELOAD = self.preload or false, ASAN_OPTIONS = "detect_leaks=0", -- leaks of an interpreter that is not dockrun
  }
end

function Installed:close() pl_dir.rmtree(self.dir) end
Installed.__close = Installed.close

return M
