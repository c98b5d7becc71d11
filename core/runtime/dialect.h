// Which Lua this process has: libdockrun is bound to whatever Lua the dynamic linker finds first, and a state may come
// from another. No function here touches a state.
#ifndef DOCKRUN_DIALECT_H
#define DOCKRUN_DIALECT_H

#include <lauxlib.h>
#include <stdbool.h>

// A Lua that is not 5.4.
struct dr_dialect {
  char why[512];                                        // a sentence that names it
  int (*error)(lua_State *L, const char *format, ...);  // its luaL_error, or NULL
};

// Whether a function belongs to a Lua that is not 5.4, which is described then. What is no Lua, or hides its names, is
// taken for the right one.
bool dr_is_wrong_lua(void *function, struct dr_dialect *d);

// The same of the Lua that our own calls go to.
bool dr_has_wrong_lua(struct dr_dialect *d);

// Lets modules in C find the functions of Lua: they are not linked with it, and a host program may have loaded us with
// RTLD_LOCAL.
void dr_expose_lua(void);

#endif
