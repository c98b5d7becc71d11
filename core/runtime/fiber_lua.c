// dockrun.core.runtime, fibers: spawn, sleep, current, limits, and the methods of a handle.
#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "data/error.h"
#include "data/lua_util.h"
#include "runtime/budget.h"
#include "runtime/fiber.h"

static const char *const state_names[] = {"new", "running", "waiting", "done", "failed"};

static struct dr_fiber *check_fiber(lua_State *L, int idx) { return luaL_checkudata(L, idx, dr_fiber_type); }

static int l_spawn(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  dr_spawn(L, lua_gettop(L) - 1, false);
  return 1;
}

// spawn_free(fn, ...): as spawn, but outside of the limits of the fiber that calls it.
static int l_spawn_free(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  dr_spawn(L, lua_gettop(L) - 1, true);
  return 1;
}

static void join_enter(struct dr_wait *w) {
  struct dr_join *j = (struct dr_join *)w;
  j->next = j->target->joins;
  j->target->joins = j;
}

static void join_leave(struct dr_wait *w) {
  struct dr_join *j = (struct dr_join *)w;
  if (!j->target) return;
  for (struct dr_join **p = &j->target->joins; *p; p = &(*p)->next) {
    if (*p != j) continue;
    *p = j->next;
    break;
  }
  j->target = NULL;
}

static int join_wait(lua_State *L, struct dr_fiber *f, double timeout, lua_KFunction k) {
  if (dr_fiber_ended(f)) return k(L, LUA_OK, 0);
  if (f == f->rt->current) return luaL_error(L, "a fiber cannot wait for its own end");
  struct dr_join *j = lua_newuserdatauv(L, sizeof *j, 1);
  *j = (struct dr_join){.target = f, .wait = {.what = "the end of a fiber", .start = join_enter, .stop = join_leave}};
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  return dr_wait(L, &j->wait, lua_gettop(L), timeout, k, 0);
}

static int fiber_awaited(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct dr_fiber *f = check_fiber(L, 1);
  if (!dr_fiber_ended(f)) {
    struct dr_error e;
    dr_fail(&e, "timeout", ETIMEDOUT, "the fiber did not end in time");
    return dr_return_error(L, &e);
  }
  lua_settop(L, 1);
  if (dr_fiber_results(L, f, 1)) return lua_gettop(L) - 1;
  lua_pop(L, 1);
  return lua_error(L);
}

// fiber:await([timeout]) -> what its function returned. Raises its error. nil, err (kind "timeout") if it runs on.
static int l_await(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  double timeout = dr_opt_seconds(L, 2, -1);
  lua_settop(L, 1);
  return join_wait(L, f, timeout, fiber_awaited);
}

static int fiber_joined(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  check_fiber(L, 1)->observed = true;
  return 0;
}

// fiber:join(): waits until it has ended, however it ended. What it raises is meant for the fiber that waits.
static int l_join(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  lua_settop(L, 1);
  return join_wait(L, f, -1, fiber_joined);
}

// fiber:cancel([reason]) -> whether it still ran. Raises in it, once, at what it waits for: an error of kind
// "cancelled" (with that sentence, if the reason is a string), or the reason, any other value.
static int l_cancel(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  lua_settop(L, 2);
  if (lua_isstring(L, 2)) {
    size_t len;
    const char *message = lua_tolstring(L, 2, &len);
    dr_push_error_text(L, "cancelled", 0, message, len);
    lua_replace(L, 2);
  }
  lua_pushboolean(L, !dr_fiber_ended(f));
  dr_cancel(L, f, lua_isnil(L, 2) ? 0 : 2);
  return 1;
}

// fiber:kill([why]): ends it and every fiber that it spawned, whatever they catch: each wait and each instruction
// raises.
static int l_kill(lua_State *L) {
  dr_kill(L, check_fiber(L, 1), luaL_optstring(L, 2, "killed"));
  return 0;
}

// A fiber that leaves its scope is cancelled, and its clean-up awaited.
static int l_close(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  lua_settop(L, 1);
  f->observed = true;
  dr_cancel(L, f, 0);
  return join_wait(L, f, -1, fiber_joined);
}

// No code observed the end of this fiber, and now none can.
static int l_gc(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  dr_report(L, f, 1);
  dr_budget_release(f->budget);
  f->budget = NULL;
  return 0;
}

static int l_tostring(lua_State *L) {
  struct dr_fiber *f = check_fiber(L, 1);
  lua_pushfstring(L, "fiber %p (%s)", (void *)f, state_names[f->state]);
  return 1;
}

// fiber:status() -> "new" | "running" | "waiting" | "done" | "failed"
static int l_status(lua_State *L) {
  lua_pushstring(L, state_names[check_fiber(L, 1)->state]);
  return 1;
}

static int fiber_slept(lua_State *L, int status, lua_KContext ctx) {
  (void)L, (void)status, (void)ctx;
  return 0;
}

static int l_sleep(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  luaL_argcheck(L, seconds >= 0, 1, "a sleep is a number of seconds of at least 0");
  struct dr_wait *w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = (struct dr_wait){.what = "a sleep"};
  return dr_wait(L, w, lua_gettop(L), seconds, fiber_slept, 0);
}

static int l_current(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_get(L);
  if (!rt->current) return 0;
  dr_push_handle(L, rt->current);
  return 1;
}

int luaopen_dockrun_core_fibers(lua_State *L) {
  static const luaL_Reg methods[] = {{"await", l_await}, {"join", l_join},           {"cancel", l_cancel},
                                     {"kill", l_kill},   {"status", l_status},       {"__close", l_close},
                                     {"__gc", l_gc},     {"__tostring", l_tostring}, {NULL, NULL}};
  static const luaL_Reg module[] = {{"spawn", l_spawn},     {"spawn_free", l_spawn_free}, {"sleep", l_sleep},
                                    {"current", l_current}, {"limit", dr_limit},          {NULL, NULL}};
  luaL_newmetatable(L, dr_fiber_type);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  dr_patch_coroutine(L);
  luaL_newlib(L, module);
  return 1;
}
