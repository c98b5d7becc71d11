// luv on the runtime's loop. Its callbacks run as fibers (dr_luv_callback); uv.run() waits like any other primitive, so
// that fibers go on and a signal is heard meanwhile.
#include <lauxlib.h>
#include <luv/luv.h>

#include "runtime/runtime.h"

struct dr_loop_run {
  struct dr_wait wait;
  struct dr_runtime *rt;
  struct dr_loop_run *next;
  bool once;
};

static void loop_run_enter(struct dr_wait *w) {
  struct dr_loop_run *r = (struct dr_loop_run *)w;
  r->next = r->rt->runs;
  r->rt->runs = r;
}

static void loop_run_leave(struct dr_wait *w) {
  struct dr_loop_run *r = (struct dr_loop_run *)w;
  for (struct dr_loop_run **at = &r->rt->runs; *at; at = &(*at)->next) {
    if (*at != r) continue;
    *at = r->next;
    return;
  }
}

static bool loop_run_wake(struct dr_runtime *rt, bool all) {
  bool woken = false;
  for (struct dr_loop_run *r = rt->runs, *next; r; r = next) {
    next = r->next;
    if (!all && !r->once) continue;
    loop_run_leave(&r->wait);
    dr_wake(&r->wait);
    woken = true;
  }
  return woken;
}

static bool loop_run_wake_all(struct dr_runtime *rt, bool idle) { return rt->runs && loop_run_wake(rt, idle); }

static int loop_run_done(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  lua_pushboolean(L, uv_loop_alive(&dr_runtime_get(L)->loop));
  return 1;
}

// uv.run(["default" | "once" | "nowait"]) -> whether something is still under way. Waits until nothing is; until
// something happened; or for one round of the loop.
static int l_run(lua_State *L) {
  static const char *const modes[] = {"default", "once", "nowait", NULL};
  int mode = luaL_checkoption(L, 1, "default", modes);
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_loop_run *r = lua_newuserdatauv(L, sizeof *r, 0);
  *r = (struct dr_loop_run){
      .rt = rt, .wait = {.what = "luv's handles", .start = loop_run_enter, .stop = loop_run_leave}, .once = mode == 1};
  return dr_wait(L, &r->wait, lua_gettop(L), mode == 2 ? 0 : -1, loop_run_done, 0);
}

// uv.stop(): ends every uv.run()
static int l_stop(lua_State *L) {
  loop_run_wake(dr_runtime_get(L), true);
  return 0;
}

// luaopen_luv, on our loop.
static int open_luv(lua_State *L) {
  static const luaL_Reg ours[] = {{"run", l_run}, {"stop", l_stop}, {NULL, NULL}};
  struct dr_runtime *rt = dr_runtime_get(L);
  rt->wake_runs = loop_run_wake_all;
  luv_set_loop(rt->L, &rt->loop);  // luv keeps the state: not that of a fiber, which ends
  luv_set_callback(rt->L, dr_luv_callback);
  int results = luaopen_luv(L);
  luaL_setfuncs(L, ours, 0);
  return results;
}

void dr_preload_luv(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "luv") != LUA_TNIL && luv_loop(L) != &dr_runtime_get(L)->loop)
    luaL_error(L, "luv is loaded already, with a loop of its own: require dockrun first");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_luv);
  lua_setfield(L, -2, "luv");
  lua_pop(L, 3);
}
