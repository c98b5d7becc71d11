// Finds the runtime of a Lua state. Apart from runtime.c, so that a file which only finds it does not need what makes
// it.
#include "runtime/runtime.h"

static const char KEY;  // in the registry

struct dr_runtime *dr_runtime_get(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
  struct dr_runtime *rt = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return rt;
}

void dr_runtime_set(lua_State *L) { lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY); }
