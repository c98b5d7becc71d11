// The life of a fiber: made, run, ended. runtime.h explains the idea.
#include "runtime/fiber.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "data/error.h"
#include "runtime/budget.h"

const char dr_fiber_type[] = "dockrun.fiber";

bool dr_fiber_ended(const struct dr_fiber *f) { return f->state >= DR_DONE; }

struct dr_fiber *dr_fiber_next(const struct dr_fiber *f) {
  return f->next;
}

unsigned long dr_fiber_run(const struct dr_fiber *f) { return f->run; }

// ---- running -----------------------------------------------------------------------------------

void dr_push_handle(lua_State *L, const struct dr_fiber *f) { lua_rawgetp(L, LUA_REGISTRYINDEX, f); }

// (fiber, n) -> the n values at the top of its coroutine, as from table.pack.
static int fiber_collect(lua_State *L) {
  struct dr_fiber *f = lua_touserdata(L, 1);
  int n = (int)lua_tointeger(L, 2);
  lua_createtable(L, n, 1);
  for (int i = n; i >= 1; i--) {
    lua_xmove(f->co, L, 1);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  return 1;
}

// A fiber without memory for its results has failed: it always has an end.
static void fiber_finish(struct dr_fiber *f, int status, int n) {
  struct dr_runtime *rt = f->rt;
  lua_State *L = rt->L;
  luaL_checkstack(L, 4, NULL);
  dr_push_handle(L, f);
  if (status == LUA_OK) {
    lua_pushcfunction(L, fiber_collect);
    lua_pushlightuserdata(L, f);
    lua_pushinteger(L, n);
    status = lua_pcall(L, 2, 1, 0);
  } else {
    lua_xmove(f->co, L, 1);
  }
  lua_setiuservalue(L, -2, DR_RESULTS);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, DR_THREAD);
  lua_pop(L, 1);
  f->state = status == LUA_OK ? DR_DONE : DR_FAILED;
  if (rt->traces) dr_trace(f, status == LUA_OK ? "ends" : "fails", NULL);
  f->co = NULL;
  dr_close_timer(f);
  *(f->prev ? &f->prev->next : &rt->fibers) = f->next;
  if (f->next) f->next->prev = f->prev;
  while (f->joins) {
    struct dr_join *j = f->joins;
    f->joins = j->next;
    j->target = NULL;
    f->observed = true;
    dr_wake(&j->wait);
  }
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, f);  // now only the users of the handle keep it
}

static void fiber_resume(struct dr_fiber *f, lua_State *from) {
  struct dr_runtime *rt = f->rt;
  struct dr_fiber *current = rt->current;
  lua_State *running = rt->running;
  int nargs = f->state == DR_NEW ? f->nargs + 1 : 0, n = 0, status;
  rt->current = f;
  rt->running = f->co;
  dr_budget_enter(f->budget);
  if (dr_budget_spent(f->budget)) dr_budget_watch(f->co, f->budget);
  if (f->state == DR_NEW && f->cancel_pending) {
    lua_settop(f->co, 0);
    dr_push_cancel(f->co, f);
    f->observed = true;
    status = LUA_ERRRUN;
  } else {
    if (f->state == DR_WAITING) lua_pop(f->co, 1);  // the mark
    f->state = DR_RUNNING;
    status = lua_resume(f->co, from, nargs, &n);
  }
  dr_budget_leave(f->budget);
  rt->current = current;
  rt->running = running;
  if (status != LUA_YIELD) {
    fiber_finish(f, status, n);
    return;
  }
  bool parked = n == 1 && dr_is_parked(f->co);
  lua_pop(f->co, n);
  lua_pushlightuserdata(f->co, (void *)&dr_parked);  // the mark: only fiber_resume() may resume it
  f->state = DR_WAITING;
  if (!parked || !f->wait || f->wait->outcome != DR_PENDING) dr_make_ready(f);  // a plain yield lets other fibers run
}

void dr_run_ready(struct dr_runtime *rt, lua_State *from) {
  struct dr_fiber *last = rt->ready_last;  // fibers that become ready meanwhile run in the next round
  while (rt->ready_first) {
    struct dr_fiber *f = rt->ready_first;
    rt->ready_first = f->next_ready;
    if (!rt->ready_first) rt->ready_last = NULL;
    f->queued = false;
    bool was_last = f == last;
    fiber_resume(f, from);
    if (was_last) break;
  }
}

// Keeps the traceback of an error for the code that prints it.
static int fiber_handle_error(lua_State *L) {
  struct dr_fiber *f = dr_runtime_get(L)->current;
  if (dr_budget_spent(f->budget)) return 1;  // its text has the place
  dr_push_handle(L, f);
  luaL_traceback(L, L, NULL, 1);
  lua_setiuservalue(L, -2, DR_TRACEBACK);
  lua_pop(L, 1);
  return 1;
}

static int fiber_body_done(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(L);
  return lua_gettop(L) - 1;
}

// The bottom of every fiber: a protected call, so that the coroutine can still wait when an error closes its
// variables.
static int fiber_body(lua_State *L) {
  lua_pushcfunction(L, fiber_handle_error);
  lua_insert(L, 1);
  return fiber_body_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, fiber_body_done), 0);
}

static struct dr_fiber *fiber_new(lua_State *L, int nargs, struct dr_budget *budget) {
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_fiber *f = lua_newuserdatauv(L, sizeof *f, DR_USER_VALUES);
  *f = (struct dr_fiber){.id = ++rt->fibers_made, .rt = rt, .nargs = nargs, .run = dr_run_id(rt), .next = rt->fibers};
  if (rt->traces) dr_trace(f, "is spawned", NULL);
  luaL_setmetatable(L, dr_fiber_type);
  f->budget = dr_budget_hold(budget);
  f->co = lua_newthread(L);
  dr_budget_watch(f->co, budget);
  lua_setiuservalue(L, -2, DR_THREAD);
  lua_insert(L, -nargs - 2);  // handle, function, arguments
  luaL_checkstack(f->co, nargs + 2, "too many arguments");
  lua_pushcfunction(f->co, fiber_body);
  lua_xmove(L, f->co, nargs + 1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, f);
  if (rt->fibers) rt->fibers->prev = f;
  rt->fibers = f;
  return f;
}

struct dr_fiber *dr_spawn(lua_State *L, int nargs, bool unlimited) {
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_fiber *f = fiber_new(L, nargs, rt->current && !unlimited ? rt->current->budget : NULL);
  dr_make_ready(f);
  return f;
}

struct dr_fiber *dr_spawn_main(lua_State *L, int nargs, unsigned long run) {
  struct dr_fiber *f = dr_spawn(L, nargs, true);
  f->run = run;
  return f;
}

// Prints how a fiber failed, unless its end was observed.
void dr_report(lua_State *L, struct dr_fiber *f, int handle) {
  if (f->state != DR_FAILED || f->observed) return;
  if (dr_budget_spent(f->budget) && dr_budget_told(f->budget)) return;
  int top = lua_gettop(L);
  dr_fiber_results(L, f, handle);
  bool wants_traceback = dr_push_sentence(L, top + 1);
  lua_writestringerror("dockrun: a fiber failed: %s\n", lua_tostring(L, -1));
  if (wants_traceback && lua_rawlen(L, top + 2)) lua_writestringerror("%s\n", lua_tostring(L, top + 2));
  lua_settop(L, top);
}

void dr_cancel(lua_State *L, struct dr_fiber *f, int reason) {
  if (dr_fiber_ended(f)) return;
  f->observed = true;  // the caller knows how it ends
  f->signal = 0;
  reason = reason ? lua_absindex(L, reason) : 0;
  dr_push_handle(L, f);
  reason ? lua_pushvalue(L, reason) : lua_pushnil(L);
  lua_setiuservalue(L, -2, DR_REASON);
  lua_pop(L, 1);
  dr_cancel_wait(f);
}

void dr_kill(lua_State *L, struct dr_fiber *f, const char *why) {
  if (!f->budget && !dr_fiber_ended(f)) {
    f->budget = dr_budget_new(f->rt, &(struct dr_limits){0});
    if (!f->budget) luaL_error(L, "out of memory");
    dr_budget_watch(f->co, f->budget);
  }
  if (!f->budget) return;
  dr_budget_spend(f->budget, why);
  for (struct dr_fiber *u = f->rt->fibers; u; u = u->next) {
    if (u->budget == f->budget) dr_cancel(L, u, 0);
  }
}

void dr_end(lua_State *L, struct dr_fiber *f) {
  if (f->budget) dr_budget_spend(f->budget, "cancelled");
  dr_cancel(L, f, 0);
}

void dr_interrupt(struct dr_fiber *f, int signal) {
  if (dr_fiber_ended(f)) return;
  f->observed = true;
  f->signal = signal;
  dr_cancel_wait(f);
}

// Pushes the results of the fiber's function and returns true, or its error and traceback and returns false.
bool dr_fiber_results(lua_State *L, struct dr_fiber *f, int handle) {
  handle = lua_absindex(L, handle);
  f->observed = true;
  lua_getiuservalue(L, handle, DR_RESULTS);
  if (f->state == DR_FAILED) {
    if (lua_getiuservalue(L, handle, DR_TRACEBACK) == LUA_TNIL) {  // there was no memory for it
      lua_pop(L, 1);
      lua_pushliteral(L, "");
    }
    return false;
  }
  int results = lua_gettop(L);
  lua_getfield(L, results, "n");
  int n = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_checkstack(L, n, "too many results");
  for (int i = 1; i <= n; i++) lua_rawgeti(L, results, i);
  lua_remove(L, results);
  return true;
}

struct dr_fiber *dr_root_new(struct dr_runtime *rt) {
  struct dr_fiber *f = calloc(1, sizeof *f);
  if (f) *f = (struct dr_fiber){.rt = rt, .state = DR_RUNNING};
  return f;
}

void dr_root_free(struct dr_fiber *f) {
  if (f) dr_close_timer(f);
  free(f);
}

void dr_give_up_fibers(struct dr_runtime *rt) {
  for (struct dr_fiber *f = rt->fibers; f; f = f->next) dr_close_timer(f);
}

static int fiber_run_callback(lua_State *L) {
  struct dr_fiber *f = fiber_new(L, lua_gettop(L) - 1, NULL);
  fiber_resume(f, L);
  dr_report(L, f, -1);
  return 0;
}

// Runs a callback of luv at once, in a fiber of its own, so that it may wait. Without memory for that the callback is
// lost: no error may pass through the loop.
int dr_luv_callback(lua_State *L, int nargs, int nresults, int flags) {
  (void)flags;
  if (nresults != 0) {  // the caller needs the results now
    int base = lua_gettop(L) - nargs;
    int status = lua_pcall(L, nargs, nresults, 0);
    if (status == LUA_OK) return lua_gettop(L) - base + 1;
    lua_pop(L, 1);
    return -status;
  }
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_fiber *current = rt->current;
  lua_State *running = rt->running;
  lua_pushcfunction(L, fiber_run_callback);
  lua_insert(L, -nargs - 2);
  if (lua_pcall(L, nargs + 1, 0, 0) == LUA_OK) return 0;
  rt->current = current;
  rt->running = running;
  lua_writestringerror("dockrun: a callback was lost: %s\n", lua_tostring(L, -1));
  lua_pop(L, 1);
  return 0;
}
