// See dialect.h.
#include "runtime/dialect.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

// The address of a function tells which Lua it belongs to. lua_topointer is used for that: no program takes its
// address, which would be an address of the program's then.
static const struct {
  const char *symbol, *name;
} dialects[] = {
    {"luaJIT_setmode", "LuaJIT (Lua 5.1)"},
    {"luaL_openselectedlibs", "Lua 5.5"},
    {"lua_toclose", NULL},
    {"lua_rotate", "Lua 5.3"},
    {"lua_callk", "Lua 5.2"},
    {"lua_topointer", "Lua 5.1"},
};

// A function of the object that `info` is about, and of no other.
static void *dialect_find(void *handle, const Dl_info *info, const char *symbol) {
  Dl_info found;
  void *function = dlsym(handle, symbol);
  return function && dladdr(function, &found) && found.dli_fbase == info->dli_fbase ? function : NULL;
}

// The loaded object at this path, or the program, which is found by no path.
static void *dialect_open(const char *path) {
  void *handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
  return handle ? handle : dlopen(NULL, RTLD_LAZY);
}

bool dr_is_wrong_lua(void *function, struct dr_dialect *d) {
  Dl_info info;
  const char *name = NULL;
  if (!dladdr(function, &info)) return false;
  void *handle = dialect_open(info.dli_fname);
  for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
    if (!dialect_find(handle, &info, dialects[i].symbol)) continue;
    name = dialects[i].name;
    break;
  }
  if (name) {
    void *error = dialect_find(handle, &info, "luaL_error");
    memcpy(&d->error, &error, sizeof error);
    snprintf(d->why, sizeof d->why, "dockrun needs Lua 5.4, got %s (%s); run it with lua5.4, or with dockrun itself",
             name, info.dli_fname);
  }
  dlclose(handle);
  return name;
}

bool dr_has_wrong_lua(struct dr_dialect *d) { return dr_is_wrong_lua((void *)lua_topointer, d); }

void dr_expose_lua(void) {
  Dl_info info;
  void *program = dlopen(NULL, RTLD_LAZY);
  bool exposed = program && dlsym(program, "lua_topointer");
  if (program) dlclose(program);
  if (!exposed && dladdr((void *)lua_topointer, &info)) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_GLOBAL);
}
