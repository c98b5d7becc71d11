// The life of a task: made, run, ended. See runtime.h for the idea.
#include "runtime/fiber.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "data/error.h"
#include "runtime/budget.h"

const char dr_task_type[] = "dockrun.task";

bool dr_task_ended(const struct dr_task *t) { return t->state >= DR_DONE; }

struct dr_task *dr_task_next(const struct dr_task *t) {
  return t->next;
}

unsigned long dr_task_run(const struct dr_task *t) { return t->run; }

// ---- running -----------------------------------------------------------------------------------

void dr_push_handle(lua_State *L, const struct dr_task *t) { lua_rawgetp(L, LUA_REGISTRYINDEX, t); }

// (task, n) -> the n values at the top of its coroutine, as table.pack makes them.
static int collect(lua_State *L) {
  struct dr_task *t = lua_touserdata(L, 1);
  int n = (int)lua_tointeger(L, 2);
  lua_createtable(L, n, 1);
  for (int i = n; i >= 1; i--) {
    lua_xmove(t->co, L, 1);
    lua_rawseti(L, -2, i);
  }
  lua_pushinteger(L, n);
  lua_setfield(L, -2, "n");
  return 1;
}

// A task whose results find no memory has failed: whatever happens, it has an end.
static void finish(struct dr_task *t, int status, int n) {
  struct dr_runtime *rt = t->rt;
  lua_State *L = rt->L;
  luaL_checkstack(L, 4, NULL);
  dr_push_handle(L, t);
  if (status == LUA_OK) {
    lua_pushcfunction(L, collect);
    lua_pushlightuserdata(L, t);
    lua_pushinteger(L, n);
    status = lua_pcall(L, 2, 1, 0);
  } else {
    lua_xmove(t->co, L, 1);
  }
  lua_setiuservalue(L, -2, DR_RESULTS);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, DR_THREAD);
  lua_pop(L, 1);
  t->state = status == LUA_OK ? DR_DONE : DR_FAILED;
  t->co = NULL;
  dr_close_timer(t);
  *(t->prev ? &t->prev->next : &rt->tasks) = t->next;
  if (t->next) t->next->prev = t->prev;
  while (t->joins) {
    struct dr_join *j = t->joins;
    t->joins = j->next;
    j->target = NULL;
    t->observed = true;
    dr_wake(&j->wait);
  }
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, t);  // from here on only the handle's users keep it
}

static void resume(struct dr_task *t, lua_State *from) {
  struct dr_runtime *rt = t->rt;
  struct dr_task *current = rt->current;
  lua_State *running = rt->running;
  int nargs = t->state == DR_NEW ? t->nargs + 1 : 0, n = 0, status;
  rt->current = t;
  rt->running = t->co;
  dr_budget_enter(t->budget);
  if (dr_budget_spent(t->budget)) dr_budget_watch(t->co, t->budget);
  if (t->state == DR_NEW && t->cancel_pending) {
    lua_settop(t->co, 0);
    dr_push_cancel(t->co, t);
    t->observed = true;
    status = LUA_ERRRUN;
  } else {
    if (t->state == DR_WAITING) lua_pop(t->co, 1);  // the mark
    t->state = DR_RUNNING;
    status = lua_resume(t->co, from, nargs, &n);
  }
  dr_budget_leave(t->budget);
  rt->current = current;
  rt->running = running;
  if (status != LUA_YIELD) {
    finish(t, status, n);
    return;
  }
  bool parked = n == 1 && dr_is_parked(t->co);
  lua_pop(t->co, n);
  lua_pushlightuserdata(t->co, (void *)&dr_parked);  // the mark: nobody but us may resume it
  t->state = DR_WAITING;
  if (!parked || !t->wait || t->wait->outcome != DR_PENDING) dr_make_ready(t);  // a plain yield lets the others run
}

void dr_run_ready(struct dr_runtime *rt, lua_State *from) {
  struct dr_task *last = rt->ready_last;  // those made ready meanwhile wait for the loop's next round
  while (rt->ready_first) {
    struct dr_task *t = rt->ready_first;
    rt->ready_first = t->next_ready;
    if (!rt->ready_first) rt->ready_last = NULL;
    t->queued = false;
    bool was_last = t == last;
    resume(t, from);
    if (was_last) break;
  }
}

// Keeps where an error came from, for whoever prints it.
static int handle_error(lua_State *L) {
  struct dr_task *t = dr_runtime_of(L)->current;
  if (dr_budget_spent(t->budget)) return 1;  // it says itself where that was
  dr_push_handle(L, t);
  luaL_traceback(L, L, NULL, 1);
  lua_setiuservalue(L, -2, DR_TRACEBACK);
  lua_pop(L, 1);
  return 1;
}

static int body_done(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  if (status != LUA_OK && status != LUA_YIELD) return lua_error(L);
  return lua_gettop(L) - 1;
}

// The bottom of every task: a protected call, so that an error closes its variables while the coroutine can still wait.
static int body(lua_State *L) {
  lua_pushcfunction(L, handle_error);
  lua_insert(L, 1);
  return body_done(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, body_done), 0);
}

static struct dr_task *new_task(lua_State *L, int nargs, struct dr_budget *budget) {
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_task *t = lua_newuserdatauv(L, sizeof *t, DR_USER_VALUES);
  *t = (struct dr_task){.rt = rt, .nargs = nargs, .run = dr_run_id(rt), .next = rt->tasks};
  luaL_setmetatable(L, dr_task_type);
  t->budget = dr_budget_hold(budget);
  t->co = lua_newthread(L);
  dr_budget_watch(t->co, budget);
  lua_setiuservalue(L, -2, DR_THREAD);
  lua_insert(L, -nargs - 2);  // handle, function, arguments
  luaL_checkstack(t->co, nargs + 2, "too many arguments");
  lua_pushcfunction(t->co, body);
  lua_xmove(L, t->co, nargs + 1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, t);
  if (rt->tasks) rt->tasks->prev = t;
  rt->tasks = t;
  return t;
}

struct dr_task *dr_spawn(lua_State *L, int nargs, bool unlimited) {
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_task *t = new_task(L, nargs, rt->current && !unlimited ? rt->current->budget : NULL);
  dr_make_ready(t);
  return t;
}

struct dr_task *dr_spawn_main(lua_State *L, int nargs, unsigned long run) {
  struct dr_task *t = dr_spawn(L, nargs, true);
  t->run = run;
  return t;
}

// Says on stderr how a task failed, if nobody else was told.
void dr_report(lua_State *L, struct dr_task *t, int handle) {
  if (t->state != DR_FAILED || t->observed) return;
  if (dr_budget_spent(t->budget) && dr_budget_told(t->budget)) return;
  int top = lua_gettop(L);
  dr_task_results(L, t, handle);
  bool wants_traceback = dr_push_sentence(L, top + 1);
  lua_writestringerror("dockrun: a task failed: %s\n", lua_tostring(L, -1));
  if (wants_traceback && lua_rawlen(L, top + 2)) lua_writestringerror("%s\n", lua_tostring(L, top + 2));
  lua_settop(L, top);
}

void dr_cancel(lua_State *L, struct dr_task *t, int reason) {
  if (dr_task_ended(t)) return;
  t->observed = true;  // who cancels a task knows how it ends
  t->signal = 0;
  reason = reason ? lua_absindex(L, reason) : 0;
  dr_push_handle(L, t);
  reason ? lua_pushvalue(L, reason) : lua_pushnil(L);
  lua_setiuservalue(L, -2, DR_REASON);
  lua_pop(L, 1);
  dr_cancel_wait(t);
}

void dr_kill(lua_State *L, struct dr_task *t, const char *why) {
  if (!t->budget && !dr_task_ended(t)) {
    t->budget = dr_budget_new(t->rt, &(struct dr_limits){0});
    if (!t->budget) luaL_error(L, "out of memory");
    dr_budget_watch(t->co, t->budget);
  }
  if (!t->budget) return;
  dr_budget_spend(t->budget, why);
  for (struct dr_task *u = t->rt->tasks; u; u = u->next) {
    if (u->budget == t->budget) dr_cancel(L, u, 0);
  }
}

void dr_end(lua_State *L, struct dr_task *t) {
  if (t->budget) dr_budget_spend(t->budget, "cancelled");
  dr_cancel(L, t, 0);
}

void dr_interrupt(struct dr_task *t, int signal) {
  if (dr_task_ended(t)) return;
  t->observed = true;
  t->signal = signal;
  dr_cancel_wait(t);
}

// Pushes what the task's function returned and says true, or its error and traceback and says false.
bool dr_task_results(lua_State *L, struct dr_task *t, int handle) {
  handle = lua_absindex(L, handle);
  t->observed = true;
  lua_getiuservalue(L, handle, DR_RESULTS);
  if (t->state == DR_FAILED) {
    if (lua_getiuservalue(L, handle, DR_TRACEBACK) == LUA_TNIL) {  // where memory ran out, nobody made one
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

struct dr_task *dr_root_new(struct dr_runtime *rt) {
  struct dr_task *t = calloc(1, sizeof *t);
  if (t) *t = (struct dr_task){.rt = rt, .state = DR_RUNNING};
  return t;
}

void dr_root_free(struct dr_task *t) {
  if (t) dr_close_timer(t);
  free(t);
}

void dr_give_up_tasks(struct dr_runtime *rt) {
  for (struct dr_task *t = rt->tasks; t; t = t->next) dr_close_timer(t);
}

static int run_callback(lua_State *L) {
  struct dr_task *t = new_task(L, lua_gettop(L) - 1, NULL);
  resume(t, L);
  dr_report(L, t, -1);
  return 0;
}

// Runs a callback of luv as a task of its own, at once, so that it may wait like any other code. Where memory is too
// short for that it is lost: no error may leave it through the loop.
int dr_luv_callback(lua_State *L, int nargs, int nresults, int flags) {
  (void)flags;
  if (nresults != 0) {  // somebody needs the answer now
    int base = lua_gettop(L) - nargs;
    int status = lua_pcall(L, nargs, nresults, 0);
    if (status == LUA_OK) return lua_gettop(L) - base + 1;
    lua_pop(L, 1);
    return -status;
  }
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_task *current = rt->current;
  lua_State *running = rt->running;
  lua_pushcfunction(L, run_callback);
  lua_insert(L, -nargs - 2);
  if (lua_pcall(L, nargs + 1, 0, 0) == LUA_OK) return 0;
  rt->current = current;
  rt->running = running;
  lua_writestringerror("dockrun: a callback was lost: %s\n", lua_tostring(L, -1));
  lua_pop(L, 1);
  return 0;
}
