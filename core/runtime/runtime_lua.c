// dockrun.core.runtime: clocks, errors, and the functions of fibers.
#include <lauxlib.h>
#include <time.h>

#include "data/error.h"
#include "runtime/runtime.h"

// now() -> seconds on a clock that never steps back
static int l_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)uv_hrtime() / 1e9);
  return 1;
}

// clock() -> seconds since 1970, nanoseconds of the second
static int l_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  lua_pushinteger(L, now.tv_sec);
  lua_pushinteger(L, now.tv_nsec);
  return 2;
}

// ignore_hangup(): from here on, SIGHUP changes nothing
static int l_ignore_hangup(lua_State *L) {
  dr_runtime_get(L)->ignores_hangup = true;
  return 0;
}

// error(kind, message [, fields]) -> an error value of the core's shape
static int l_error(lua_State *L) {
  size_t len;
  const char *kind = luaL_checkstring(L, 1), *message = luaL_checklstring(L, 2, &len);
  lua_settop(L, 3);
  dr_push_error_text(L, kind, 0, message, len);
  if (lua_istable(L, 3)) {
    for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      lua_rawset(L, 4);
    }
  }
  return 1;
}

int luaopen_dockrun_core_runtime(lua_State *L) {
  static const luaL_Reg module[] = {
      {"now", l_now}, {"clock", l_clock}, {"error", l_error}, {"ignore_hangup", l_ignore_hangup}, {NULL, NULL}};
  dr_runtime_get(L);
  luaopen_dockrun_core_fibers(L);
  luaL_setfuncs(L, module, 0);
  lua_pushliteral(L, DOCKRUN_VERSION);
  lua_setfield(L, -2, "version");
  return 1;
}
