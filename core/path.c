// Finds the directories of the Lua files, and sets package.path.
#include <dlfcn.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modules.h"

static const char here;  // an address in this executable or library

static bool holds_policy(const char *dir) {
  char probe[PATH_MAX];
  return snprintf(probe, sizeof probe, "%s/dockrun/init.lua", dir) < (int)sizeof probe && access(probe, R_OK) == 0;
}

// The directory of this executable or library, or "" if it is unknown.
static void own_directory(char *dir, size_t size) {
  Dl_info info;
  char path[PATH_MAX] = "";
  *dir = '\0';
  if (!dladdr(&here, &info) || !strchr(info.dli_fname, '/') || !realpath(info.dli_fname, path)) {
    if (!realpath("/proc/self/exe", path)) return;
  }
  char *slash = strrchr(path, '/');
  if (slash) *slash = '\0';
  snprintf(dir, size, "%s", path);
}

// Appends a directory to the search path at the top.
static void add_directory(lua_State *L, const char *dir) {
  lua_pushfstring(L, "%s%s/?.lua;%s/?/init.lua;", lua_tostring(L, -1), dir, dir);
  lua_replace(L, -2);
}

// Puts the Lua policy before the default package.path: DOCKRUN_LUA_PATH (directories, separated by ':'), and the first
// of these that has it: the build tree's, the installed one beside the executable or the library, the configured one.
void dr_set_path(lua_State *L) {
  static const char *const beside[] = {"/../../lua", "/../share/dockrun/lua", "/../../share/dockrun/lua"};
  const char *configured = DOCKRUN_SHARE, *listed = getenv("DOCKRUN_LUA_PATH");
  char own[PATH_MAX];
  own_directory(own, sizeof own);
  int top = lua_gettop(L);
  lua_pushliteral(L, "");
  for (size_t len; listed && *listed; listed += len + (listed[len] == ':')) {
    len = strcspn(listed, ":");
    if (!len) continue;
    const char *dir = lua_pushlstring(L, listed, len);
    lua_insert(L, -2);
    add_directory(L, dir);
  }
  for (size_t i = 0; *own && i < sizeof beside / sizeof *beside; i++) {
    const char *dir = lua_pushfstring(L, "%s%s", own, beside[i]);
    lua_insert(L, -2);
    if (!holds_policy(dir)) continue;
    add_directory(L, dir);
    configured = NULL;
    break;
  }
  if (configured && holds_policy(configured)) add_directory(L, configured);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s%s", lua_tostring(L, -3), lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_settop(L, top);
}
