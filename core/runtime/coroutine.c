// Coroutines inside of fibers. A generator that waits must park its whole fiber, and not hand the parking to its
// consumer: these take the place of coroutine.resume and coroutine.wrap, and are otherwise what lcorolib.c has.
#include <lauxlib.h>

#include "runtime/runtime.h"

static int coroutine_resumed(lua_State *L, int status, lua_KContext raises);
static int coroutine_continue(lua_State *L, lua_State *co, lua_KContext raises);

static int coroutine_run(lua_State *L, lua_State *co, int nargs, lua_KContext raises) {
  struct dr_runtime *rt = dr_runtime_get(L);
  lua_State *outer = rt->running;
  int n = 0;
  rt->running = co;
  int status = lua_resume(co, L, nargs, &n);
  rt->running = outer;
  if (status == LUA_YIELD && n == 1 && dr_is_parked(co) && rt->current) {
    if (lua_isyieldable(L)) {
      lua_pushlightuserdata(L, (void *)&dr_parked);
      return lua_yieldk(L, 1, raises, coroutine_resumed);
    }
    if (rt->in_uv) return luaL_error(L, "cannot wait inside of a callback that cannot yield; use spawn()");
    dr_run_until_woken(L, dr_fiber_wait(rt->current));
    return coroutine_continue(L, co, raises);
  }
  if (status == LUA_OK || status == LUA_YIELD) {
    luaL_checkstack(L, n + 1, "too many results");
    if (!raises) lua_pushboolean(L, true);
    lua_xmove(co, L, n);
    return raises ? n : n + 1;
  }
  lua_xmove(co, L, 1);
  if (raises) {
    if (lua_status(co) > LUA_YIELD) {
      lua_resetthread(co);  // closes its variables, any of which may put another error in place of this one
      lua_xmove(co, L, 1);
    }
    if (lua_type(L, -1) == LUA_TSTRING) {  // add the place, as coroutine.wrap does
      luaL_where(L, 1);
      lua_insert(L, -2);
      lua_concat(L, 2);
    }
    return lua_error(L);
  }
  lua_pushboolean(L, false);
  lua_insert(L, -2);
  return 2;
}

static lua_State *coroutine_of(lua_State *L, bool raises) { return lua_tothread(L, raises ? lua_upvalueindex(1) : 1); }

// Its wait has ended.
static int coroutine_continue(lua_State *L, lua_State *co, lua_KContext raises) {
  if (lua_status(co) == LUA_YIELD && dr_is_parked(co)) lua_pop(co, 1);  // otherwise it was closed meanwhile
  return coroutine_run(L, co, 0, raises);
}

static int coroutine_resumed(lua_State *L, int status, lua_KContext raises) {
  (void)status;
  return coroutine_continue(L, coroutine_of(L, raises), raises);
}

static int coroutine_refuse(lua_State *L, const char *why, lua_KContext raises) {
  if (raises) return luaL_error(L, "%s", why);
  lua_pushboolean(L, false);
  lua_pushstring(L, why);
  return 2;
}

static int coroutine_start(lua_State *L, lua_State *co, int nargs, lua_KContext raises) {
  if (!lua_checkstack(co, nargs)) return coroutine_refuse(L, "too many arguments to resume", raises);
  if (lua_status(co) == LUA_YIELD && dr_is_parked(co))
    return coroutine_refuse(L, "cannot resume a coroutine that waits", raises);
  lua_xmove(L, co, nargs);
  return coroutine_run(L, co, nargs, raises);
}

static int l_co_resume(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTHREAD);
  return coroutine_start(L, lua_tothread(L, 1), lua_gettop(L) - 1, false);
}

static int l_co_wrapped(lua_State *L) { return coroutine_start(L, coroutine_of(L, true), lua_gettop(L), true); }

static int l_co_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, l_co_wrapped, 1);
  return 1;
}

void dr_patch_coroutine(lua_State *L) {
  static const luaL_Reg coroutines[] = {{"resume", l_co_resume}, {"wrap", l_co_wrap}, {NULL, NULL}};
  lua_getglobal(L, "coroutine");
  if (lua_istable(L, -1)) luaL_setfuncs(L, coroutines, 0);
  lua_pop(L, 1);
}
