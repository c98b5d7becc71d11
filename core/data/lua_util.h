// Helpers for bindings to Lua. They know no loop and no fiber.
#ifndef DOCKRUN_LUA_UTIL_H
#define DOCKRUN_LUA_UTIL_H

#include <lua.h>
#include <stdbool.h>

// Optional seconds at argument idx (absent: `fallback`). Raises on a negative number.
double dr_opt_seconds(lua_State *L, int idx, double fallback);

// luaL_setmetatable for a type that has only a finalizer. It sets the finalizer each time: if memory ran out when the
// metatable was made, it has none.
void dr_set_gc(lua_State *L, const char *type, lua_CFunction gc);

// lua_pcall for short calls of the core itself. A signal that comes meanwhile raises its error after the call, and a
// lack of memory is raised again: neither is caught.
int dr_protected(lua_State *L, int nargs, int nresults);

// Whether such a call runs.
bool dr_is_protected(void);

// Pushes the error that a signal raises (kind "cancelled", field `signal`). Returns 1.
int dr_interrupted(lua_State *L, int signal);

#endif
