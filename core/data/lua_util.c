#include "data/lua_util.h"

#include <lauxlib.h>
#include <signal.h>
#include <string.h>

#include "data/error.h"

double dr_opt_seconds(lua_State *L, int idx, double fallback) {
  if (lua_isnoneornil(L, idx)) return fallback;
  double seconds = luaL_checknumber(L, idx);
  luaL_argcheck(L, seconds >= 0, idx, "a time-out is a number of seconds of at least 0");
  return seconds;
}

void dr_set_gc(lua_State *L, const char *type, lua_CFunction gc) {
  luaL_newmetatable(L, type);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

static _Thread_local int protected;

int dr_protected(lua_State *L, int nargs, int nresults) {
  protected++;
  int status = lua_pcall(L, nargs, nresults, 0);
  protected--;
  if (status == LUA_ERRMEM) lua_error(L);
  return status;
}

bool dr_is_protected(void) { return protected > 0; }

int dr_interrupted(lua_State *L, int signal) {
  static const struct {
    int signal;
    const char *name;
  } names[] = {{SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}, {SIGPIPE, "SIGPIPE"}};
  const char *name = "SIGINT";
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].signal == signal) name = names[i].name;
  const char *message = lua_pushfstring(L, "interrupted by %s", name);
  dr_push_error_text(L, "cancelled", 0, message, strlen(message));
  lua_pushstring(L, name);
  lua_setfield(L, -2, "signal");
  lua_remove(L, -2);
  return 1;
}
