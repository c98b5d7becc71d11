-- Where a plain Lua looks for its modules: the core, which knows where the rest of dockrun is and puts that first.
if _VERSION ~= "Lua 5.4" then
  local version = type(jit) == "table" and jit.version or _VERSION
  error("dockrun needs Lua 5.4, got " .. version .. "; run it with lua5.4, or with dockrun itself", 0)
end
require "dockrun.core"
assert(package.searchpath("dockrun.hooks", package.path), "dockrun's Lua files are not where they were installed; set DOCKRUN_LUA_PATH")
return require "dockrun"
