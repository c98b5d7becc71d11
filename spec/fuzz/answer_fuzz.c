// libFuzzer: the way of an answer (core/http/request.c, answer.c, stream.c, upgrade.c), from the bytes on a socket to
// Lua values. The first byte chooses the call, the second where the bytes are cut in two; the rest is the
// engine's answer.
#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "dockrun.h"

static void call(dockrun *d, int nargs) {
  if (!dockrun_call(d, nargs)) return;
  fprintf(stderr, "%s\n", luaL_tolstring(dockrun_lua(d), -2, NULL));
  abort();
}

static dockrun *open_all(void) {
  char why[256];
  dockrun *d = dockrun_open(why, sizeof why);
  if (!d || luaL_loadfile(dockrun_lua(d), SCRIPT)) abort();
  call(d, 0);
  lua_setglobal(dockrun_lua(d), "answer_fuzz");
  return d;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  static dockrun *d;
  if (size < 2) return 0;
  if (!d) d = open_all();
  lua_State *L = dockrun_lua(d);
  lua_getglobal(L, "answer_fuzz");
  lua_pushlstring(L, (const char *)bytes, size);
  call(d, 1);  // errors of the engine are returned to the script, which raises none
  lua_settop(L, 0);
  return 0;
}
