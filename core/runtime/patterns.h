// Pattern matching that a limit or a signal ends: string.find, match, gmatch and gsub of Lua's library, with the same
// results and errors, whose steps are counted. Lua's own may backtrack for years inside of one call of C.
#ifndef DOCKRUN_PATTERNS_H
#define DOCKRUN_PATTERNS_H

#include <lua.h>

// Puts them in the place of the library's, if those are still there, for all code of the state.
void dr_patch_patterns(lua_State *L);

#endif
