// The public face of the core: dockrun.h.
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#include "dockrun.h"
#include "runtime.h"

static int open_all(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "dockrun.core", luaopen_dockrun_core, 0);
  return 0;
}

dockrun *dockrun_open(char *why, size_t size) {
  lua_State *L = luaL_newstate();
  if (!L) {
    snprintf(why, size, "out of memory");
    return NULL;
  }
  lua_pushcfunction(L, open_all);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    snprintf(why, size, "%s", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return NULL;
  }
  return dr_runtime_of(L);
}

lua_State *dockrun_lua(dockrun *d) { return d->L; }

int dockrun_call(dockrun *d, int nargs) { return dr_run_main(d->L, nargs); }

int dockrun_catch_signals(dockrun *d) { return dr_catch_signals(d); }

// Prints an error as lua does: with a traceback, but for an error that is an object with a text of its own.
static void print_error(lua_State *L, int error) {
  bool object = lua_istable(L, error);
  fflush(stdout);
  fprintf(stderr, "dockrun: %s\n", luaL_tolstring(L, error, NULL));
  if (!object && lua_isstring(L, error + 1)) fprintf(stderr, "%s\n", lua_tostring(L, error + 1));
}

int dockrun_run(dockrun *d, int argc, char **argv) {
  lua_State *L = d->L;
  int top = lua_gettop(L), code = EXIT_FAILURE;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "dockrun.cli");
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
    fprintf(stderr,
            "dockrun: cannot load its Lua files; set DOCKRUN_LUA_PATH to the directory that holds dockrun/\n%s\n",
            luaL_tolstring(L, -1, NULL));
    lua_settop(L, top);
    return 4;
  }
  lua_createtable(L, argc, 0);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  if (dr_run_main(L, 1) == LUA_OK) {
    code = lua_isinteger(L, top + 1) ? (int)lua_tointeger(L, top + 1) : EXIT_SUCCESS;
  } else {
    if (lua_istable(L, top + 1) && lua_getfield(L, top + 1, "signal") != LUA_TNIL) code = 130;
    lua_settop(L, top + 2);
    print_error(L, top + 1);
  }
  lua_settop(L, top);
  return code;
}

void dockrun_close(dockrun *d) {
  if (d) lua_close(d->L);
}

const char *dockrun_version(void) { return DOCKRUN_VERSION; }
