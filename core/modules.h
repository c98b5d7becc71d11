// The entry of the library, and the search path of its Lua files.
#ifndef DOCKRUN_MODULES_H
#define DOCKRUN_MODULES_H

#include <lauxlib.h>

int luaopen_dockrun_core(lua_State *L);

// Puts the directories of dockrun's Lua files before package.path.
void dr_set_path(lua_State *L);

#endif
