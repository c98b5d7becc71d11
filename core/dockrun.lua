-- Where a plain Lua looks for its modules: the core, which knows where the rest of dockrun is and puts that first.
require "dockrun.core"
assert(package.searchpath("dockrun.hooks", package.path), "dockrun's Lua files are not where they were installed; set DOCKRUN_LUA_PATH")
return require "dockrun"
