// dockrun.core, the entry of the library: makes the runtime and registers its modules.
#include "modules.h"

#include "data/error.h"
#include "runtime/dialect.h"
#include "runtime/output.h"
#include "runtime/runtime.h"

int luaopen_dockrun_core_beneath(lua_State *L);
int luaopen_dockrun_core_budget(lua_State *L);
int luaopen_dockrun_core_cgroup(lua_State *L);
int luaopen_dockrun_core_docker(lua_State *L);
int luaopen_dockrun_core_encoding(lua_State *L);
int luaopen_dockrun_core_operations(lua_State *L);
int luaopen_dockrun_core_frames(lua_State *L);
int luaopen_dockrun_core_http(lua_State *L);
int luaopen_dockrun_core_json(lua_State *L);
int luaopen_dockrun_core_peer(lua_State *L);
int luaopen_dockrun_core_ports(lua_State *L);
int luaopen_dockrun_core_process(lua_State *L);
int luaopen_dockrun_core_queue(lua_State *L);
int luaopen_dockrun_core_runtime(lua_State *L);
int luaopen_dockrun_core_sqlite(lua_State *L);
int luaopen_dockrun_core_standard(lua_State *L);

// clang-format off
static const luaL_Reg modules[] = {
    {"dockrun.core.beneath", luaopen_dockrun_core_beneath},
    {"dockrun.core.budget", luaopen_dockrun_core_budget},
    {"dockrun.core.cgroup", luaopen_dockrun_core_cgroup},
    {"dockrun.core.docker", luaopen_dockrun_core_docker},
    {"dockrun.core.encoding", luaopen_dockrun_core_encoding},
    {"dockrun.core.operations", luaopen_dockrun_core_operations},
    {"dockrun.core.frames", luaopen_dockrun_core_frames},
    {"dockrun.core.http", luaopen_dockrun_core_http},
    {"dockrun.core.json", luaopen_dockrun_core_json},
    {"dockrun.core.peer", luaopen_dockrun_core_peer},
    {"dockrun.core.ports", luaopen_dockrun_core_ports},
    {"dockrun.core.process", luaopen_dockrun_core_process},
    {"dockrun.core.queue", luaopen_dockrun_core_queue},
    {"dockrun.core.runtime", luaopen_dockrun_core_runtime},
    {"dockrun.core.sqlite", luaopen_dockrun_core_sqlite},
    {"dockrun.core.standard", luaopen_dockrun_core_standard},
    {NULL, NULL},
};
// clang-format on

// os.exit([code [, close]]) as in Lua, but that luv's handles are let go of first: luv does not survive a state that is
// closed while one of them is closing. In a callback of the loop that cannot be done, and the state is not closed.
static int l_exit(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_get(L);
  lua_settop(L, 2);
  if (lua_toboolean(L, 2)) {
    bool closes = !rt->in_uv && !dr_is_copy(rt);
    if (closes) dr_settle_loop(rt);
    lua_pushboolean(L, closes);
    lua_replace(L, 2);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  return 0;
}

static void wrap_exit(lua_State *L) {
  lua_getglobal(L, "os");
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "exit");
    lua_pushcclosure(L, l_exit, 1);
    lua_setfield(L, -2, "exit");
  }
  lua_pop(L, 1);
}

static void preload(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const luaL_Reg *m = modules; m->name; m++) {
    lua_pushcfunction(L, m->func);
    lua_setfield(L, -2, m->name);
  }
  lua_pop(L, 1);
  dr_preload_luv(L);
}

// require "dockrun.core"
__attribute__((visibility("default"))) int luaopen_dockrun_core(lua_State *L) {
  struct dr_dialect wrong = {.error = luaL_error};
  // The Lua that calls this, and the one that would be called from here: they may be two.
  if (dr_is_wrong_lua(__builtin_return_address(0), &wrong) || dr_has_wrong_lua(&wrong))
    return wrong.error ? wrong.error(L, "%s", wrong.why) : 0;
  dr_expose_lua();
  // Else the next file that is opened, such as one of the loop's own, would be taken for a standard stream.
  int closed = dr_closed_standard();
  if (closed >= 0) return luaL_error(L, "file descriptor %d is closed; open /dev/null for it first", closed);
  dr_runtime_new(L);
  preload(L);
  dr_set_path(L);
  wrap_exit(L);
  luaL_requiref(L, "dockrun.core.runtime", luaopen_dockrun_core_runtime, 0);
  return 1;
}
