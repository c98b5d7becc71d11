// Tasks: coroutines that wait. See runtime.h for the idea.
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "runtime.h"

static const char TASK[] = "dockrun.task";
const char dr_parked;

enum state { NEW, RUNNING, WAITING, DONE, FAILED };
static const char *const state_names[] = {"new", "running", "waiting", "done", "failed"};
enum { THREAD = 1, RESULTS, TRACEBACK, REASON, USER_VALUES = REASON };  // user values of a handle

struct join {
  struct dr_wait wait;
  struct dr_task *target;
  struct join *next;
};

struct dr_task {
  struct dr_runtime *rt;
  lua_State *co;
  enum state state;
  bool cancel_pending, observed;  // observed: somebody has seen how it ended
  int nargs;
  struct dr_wait *wait;
  uv_timer_t *timer;  // made when first needed
  struct join *joins;
  struct dr_task *next, *prev;  // all live tasks
  struct dr_task *next_ready;
  bool queued;
  bool blocked;             // waits in a loop of its own, because it could not yield
  bool spent;               // has used up its instructions: each further one raises
  lua_Integer limit, left;  // of instructions; limit 0 for none
};

bool dr_task_ended(const struct dr_task *t) { return t->state >= DONE; }
struct dr_wait *dr_task_wait(const struct dr_task *t) {
  return t->wait;
}

// ---- the ready queue ---------------------------------------------------------------------------

static void make_ready(struct dr_task *t) {
  if (t->queued || t->blocked || t == t->rt->root) return;
  struct dr_runtime *rt = t->rt;
  t->queued = true;
  t->next_ready = NULL;
  *(rt->ready_last ? &rt->ready_last->next_ready : &rt->ready_first) = t;
  rt->ready_last = t;
}

// Pushes the handle of a live task, which the registry keeps.
static void push_handle(lua_State *L, struct dr_task *t) { lua_rawgetp(L, LUA_REGISTRYINDEX, t); }

// ---- waiting -----------------------------------------------------------------------------------

static void end_wait(struct dr_wait *w, enum dr_outcome outcome) {
  if (!w->task || w->outcome != DR_PENDING) return;
  w->outcome = outcome;
  if (w->task->timer) uv_timer_stop(w->task->timer);
  if (outcome != DR_WOKEN && w->stop) w->stop(w);
  make_ready(w->task);
}

void dr_wake(struct dr_wait *w) { end_wait(w, DR_WOKEN); }

static void on_timer(uv_timer_t *timer) {
  struct dr_task *t = timer->data;
  if (t->wait) end_wait(t->wait, DR_TIMED_OUT);
}

static void on_timer_closed(uv_handle_t *timer) { free(timer); }

static void close_timer(struct dr_task *t) {
  if (t->timer) uv_close((uv_handle_t *)t->timer, on_timer_closed);
  t->timer = NULL;
}

static void start_timer(lua_State *L, struct dr_task *t, double seconds) {
  if (!t->timer) {
    t->timer = malloc(sizeof *t->timer);
    if (!t->timer) luaL_error(L, "out of memory");
    uv_timer_init(&t->rt->loop, t->timer);
    t->timer->data = t;
  }
  uv_update_time(&t->rt->loop);
  // Rounded up: a task must not find itself awake before its time.
  uint64_t ms = seconds < 1e12 ? (uint64_t)(seconds * 1000 + 0.999) : (uint64_t)1e15;
  uv_timer_start(t->timer, on_timer, ms, 0);
}

static void detach(lua_State *L, struct dr_wait *w) {
  if (w->task) w->task->wait = NULL;
  w->task = NULL;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, w);
}

// Raises the reason with which t was cancelled.
static int raise_cancel(lua_State *L, struct dr_task *t) {
  t->cancel_pending = false;
  if (t != t->rt->root) {
    push_handle(L, t);
    lua_getiuservalue(L, -1, REASON);
    lua_remove(L, -2);
  }
  if (t == t->rt->root || lua_isnil(L, -1)) dr_push_error_text(L, "cancelled", 0, "cancelled", strlen("cancelled"));
  return lua_error(L);
}

static int finish_wait(lua_State *L, struct dr_wait *w) {
  struct dr_task *t = w->task;
  detach(L, w);
  if (w->outcome == DR_CANCELLED) return raise_cancel(L, t);
  return w->k(L, LUA_YIELD, w->ctx);
}

static int resumed(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  return finish_wait(L, (struct dr_wait *)ctx);
}

void dr_run_until_woken(lua_State *L, struct dr_wait *w) {
  struct dr_runtime *rt = w->task->rt;
  struct dr_task *current = rt->current;
  lua_State *running = rt->running;
  struct dr_task *t = w->task;
  t->blocked = true;
  rt->current = NULL;
  while (w->outcome == DR_PENDING && dr_step(rt, L)) {}
  t->blocked = false;
  rt->current = current;
  rt->running = running;
  if (w->outcome != DR_PENDING) return;
  end_wait(w, DR_CANCELLED);
  detach(L, w);
  luaL_error(L, "this wait can never end: nothing is under way that could wake it");
}

int dr_wait(lua_State *L, struct dr_wait *w, int anchor, double timeout, lua_KFunction k, lua_KContext ctx) {
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_task *t = rt->current ? rt->current : rt->root;
  bool yields = rt->current && lua_isyieldable(L);
  if (w->task) return luaL_error(L, "another task waits for this already");
  if (!yields && rt->in_uv) return luaL_error(L, "cannot wait inside of a callback that cannot yield; use spawn()");
  if (t->wait) detach(L, t->wait);  // its coroutine was closed while it waited
  lua_pushvalue(L, anchor);
  lua_rawsetp(L, LUA_REGISTRYINDEX, w);
  w->task = t;
  w->outcome = DR_PENDING;
  w->k = k;
  w->ctx = ctx;
  t->wait = w;
  if (t->cancel_pending) {
    w->outcome = DR_CANCELLED;
    if (w->stop) w->stop(w);
    return finish_wait(L, w);
  }
  if (timeout >= 0) start_timer(L, t, timeout);
  if (yields) {
    lua_pushlightuserdata(L, (void *)&dr_parked);
    return lua_yieldk(L, 1, (lua_KContext)w, resumed);
  }
  dr_run_until_woken(L, w);
  return finish_wait(L, w);
}

// ---- limits ------------------------------------------------------------------------------------

enum { SLICE = 10000 };  // instructions between two looks at the clock of a limit

// Each coroutine of a task has a count of its own, and all share what is left. Once that is used up, every instruction
// raises, so that no pcall gets any further.
static void on_slice(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct dr_task *t = dr_runtime_of(L)->current;
  if (!t || !t->limit) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!t->spent && (t->left -= SLICE) > 0) return;
  t->spent = true;
  lua_sethook(L, on_slice, LUA_MASKCOUNT, 1);
  luaL_error(L, "it ran more than %I instructions: an endless loop?", (LUAI_UACINT)t->limit);
}

void dr_restore_hook(lua_State *L) {
  struct dr_task *t = dr_runtime_of(L)->current;
  if (t && t->limit)
    lua_sethook(L, on_slice, LUA_MASKCOUNT, SLICE);
  else
    lua_sethook(L, NULL, 0, 0);
}

// limit(instructions): what the current task may run from here on, together with every task that it spawns. An error is
// raised in it beyond that. A function of C, however long it takes, counts as one.
static int l_limit(lua_State *L) {
  struct dr_task *t = dr_runtime_of(L)->current;
  lua_Integer limit = luaL_checkinteger(L, 1);
  luaL_argcheck(L, limit > 0, 1, "a limit is a number of instructions above 0");
  if (!t) return luaL_error(L, "only a task can have a limit");
  t->limit = t->left = limit;
  dr_restore_hook(L);
  return 0;
}

// ---- running -----------------------------------------------------------------------------------

static void finish(struct dr_task *t, int status, int n) {
  struct dr_runtime *rt = t->rt;
  lua_State *L = rt->L;
  luaL_checkstack(L, 4, NULL);
  push_handle(L, t);
  if (status == LUA_OK) {
    lua_createtable(L, n, 1);
    for (int i = n; i >= 1; i--) {
      lua_xmove(t->co, L, 1);
      lua_rawseti(L, -2, i);
    }
    lua_pushinteger(L, n);
    lua_setfield(L, -2, "n");
  } else {
    lua_xmove(t->co, L, 1);
  }
  lua_setiuservalue(L, -2, RESULTS);
  lua_pushnil(L);
  lua_setiuservalue(L, -2, THREAD);
  lua_pop(L, 1);
  t->state = status == LUA_OK ? DONE : FAILED;
  t->co = NULL;
  close_timer(t);
  *(t->prev ? &t->prev->next : &rt->tasks) = t->next;
  if (t->next) t->next->prev = t->prev;
  while (t->joins) {
    struct join *j = t->joins;
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
  int nargs = t->state == NEW ? t->nargs + 1 : 0, n = 0, status;
  rt->current = t;
  rt->running = t->co;
  if (t->state == NEW && t->cancel_pending) {
    lua_settop(t->co, 0);
    push_handle(t->co, t);
    lua_getiuservalue(t->co, -1, REASON);
    if (lua_isnil(t->co, -1)) dr_push_error_text(t->co, "cancelled", 0, "cancelled", strlen("cancelled"));
    t->observed = true;
    status = LUA_ERRRUN;
  } else {
    t->state = RUNNING;
    status = lua_resume(t->co, from, nargs, &n);
  }
  rt->current = current;
  rt->running = running;
  if (status != LUA_YIELD) {
    finish(t, status, n);
    return;
  }
  bool parked = n == 1 && lua_touserdata(t->co, -1) == &dr_parked;
  lua_pop(t->co, n);
  t->state = WAITING;
  if (!parked || !t->wait || t->wait->outcome != DR_PENDING) make_ready(t);  // a plain yield lets the others run
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
  push_handle(L, t);
  luaL_traceback(L, L, NULL, 1);
  lua_setiuservalue(L, -2, TRACEBACK);
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

static struct dr_task *new_task(lua_State *L, int nargs) {
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_task *t = lua_newuserdatauv(L, sizeof *t, USER_VALUES);
  *t = (struct dr_task){.rt = rt, .nargs = nargs, .next = rt->tasks};
  luaL_setmetatable(L, TASK);
  if (rt->current) t->limit = t->left = rt->current->limit;
  t->co = lua_newthread(L);  // with the hook of the one that makes it
  lua_setiuservalue(L, -2, THREAD);
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

struct dr_task *dr_spawn(lua_State *L, int nargs) {
  struct dr_task *t = new_task(L, nargs);
  make_ready(t);
  return t;
}

// Says on stderr how a task failed, if nobody else was told.
static void report(lua_State *L, struct dr_task *t, int handle) {
  if (t->state != FAILED || t->observed) return;
  int top = lua_gettop(L);
  dr_task_results(L, t, handle);
  bool wants_traceback = dr_push_sentence(L, top + 1);
  lua_writestringerror("dockrun: a task failed: %s\n", lua_tostring(L, -1));
  if (wants_traceback && lua_isstring(L, top + 2)) lua_writestringerror("%s\n", lua_tostring(L, top + 2));
  lua_settop(L, top);
}

void dr_cancel(struct dr_runtime *rt, struct dr_task *t, int reason) {
  if (dr_task_ended(t)) return;
  t->observed = true;  // who cancels a task knows how it ends
  lua_State *L = rt->L;
  if (t != rt->root) {
    reason = reason ? lua_absindex(L, reason) : 0;
    push_handle(L, t);
    reason ? lua_pushvalue(L, reason) : lua_pushnil(L);
    lua_setiuservalue(L, -2, REASON);
    lua_pop(L, 1);
  }
  if (t->wait && t->wait->outcome == DR_PENDING)
    end_wait(t->wait, DR_CANCELLED);
  else
    t->cancel_pending = true;
}

struct dr_task *dr_task_next(const struct dr_task *t) {
  return t->next;
}

// Pushes what the task's function returned and says true, or its error and traceback and says false.
bool dr_task_results(lua_State *L, struct dr_task *t, int handle) {
  handle = lua_absindex(L, handle);
  t->observed = true;
  lua_getiuservalue(L, handle, RESULTS);
  if (t->state == FAILED) {
    lua_getiuservalue(L, handle, TRACEBACK);
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

// Runs a callback of luv as a task of its own, at once, so that it may wait like any other code.
int dr_luv_callback(lua_State *L, int nargs, int nresults, int flags) {
  (void)flags;
  if (nresults != 0) {  // somebody needs the answer now
    int base = lua_gettop(L) - nargs;
    int status = lua_pcall(L, nargs, nresults, 0);
    if (status == LUA_OK) return lua_gettop(L) - base + 1;
    lua_pop(L, 1);
    return -status;
  }
  struct dr_task *t = new_task(L, nargs);
  resume(t, L);
  report(L, t, -1);
  lua_pop(L, 1);
  return 0;
}

// ---- the border --------------------------------------------------------------------------------

static struct dr_task *check_task(lua_State *L, int idx) { return luaL_checkudata(L, idx, TASK); }

static int l_spawn(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  dr_spawn(L, lua_gettop(L) - 1);
  return 1;
}

static void leave_join(struct dr_wait *w) {
  struct join *j = (struct join *)w;
  if (!j->target) return;
  for (struct join **p = &j->target->joins; *p; p = &(*p)->next) {
    if (*p != j) continue;
    *p = j->next;
    break;
  }
  j->target = NULL;
}

static int join(lua_State *L, struct dr_task *t, double timeout, lua_KFunction k) {
  if (dr_task_ended(t)) return k(L, LUA_OK, 0);
  if (t == t->rt->current) return luaL_error(L, "a task cannot wait for its own end");
  struct join *j = lua_newuserdatauv(L, sizeof *j, 1);
  *j = (struct join){.target = t, .next = t->joins, .wait = {.stop = leave_join}};
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  t->joins = j;
  return dr_wait(L, &j->wait, lua_gettop(L), timeout, k, 0);
}

static int awaited(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct dr_task *t = check_task(L, 1);
  if (!dr_task_ended(t)) {
    struct dr_error e;
    dr_fail(&e, "timeout", 110, "the task did not end in time");
    return dr_return_error(L, &e);
  }
  lua_settop(L, 1);
  if (dr_task_results(L, t, 1)) return lua_gettop(L) - 1;
  lua_pop(L, 1);
  return lua_error(L);
}

// task:await([timeout]) -> what its function returned. Raises its error. nil, err (kind "timeout") if it runs on.
static int l_await(lua_State *L) {
  struct dr_task *t = check_task(L, 1);
  double timeout = dr_opt_seconds(L, 2, -1);
  lua_settop(L, 1);
  return join(L, t, timeout, awaited);
}

// task:cancel([reason]): raises in it, once, at what it waits for: an error of kind "cancelled", or the reason.
static int l_cancel(lua_State *L) {
  struct dr_task *t = check_task(L, 1);
  struct dr_runtime *rt = t->rt;
  lua_settop(L, 2);
  if (lua_isstring(L, 2)) {
    size_t len;
    const char *message = lua_tolstring(L, 2, &len);
    dr_push_error_text(L, "cancelled", 0, message, len);
    lua_replace(L, 2);
  }
  bool live = !dr_task_ended(t);
  if (L != rt->L) {
    luaL_checkstack(rt->L, 4, NULL);
    lua_xmove(L, rt->L, 1);
  }
  dr_cancel(rt, t, lua_isnil(rt->L, -1) ? 0 : lua_gettop(rt->L));
  if (L != rt->L) lua_pop(rt->L, 1);
  lua_pushboolean(L, live);
  return 1;
}

static int closed(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  check_task(L, 1)->observed = true;
  return 0;
}

// A task that leaves its scope is cancelled, and its clean-up awaited.
static int l_close(lua_State *L) {
  struct dr_task *t = check_task(L, 1);
  lua_settop(L, 1);
  t->observed = true;
  if (!dr_task_ended(t)) {
    luaL_checkstack(t->rt->L, 4, NULL);
    dr_cancel(t->rt, t, 0);
  }
  return join(L, t, -1, closed);
}

// Nobody asked how this task ended, and now nobody can.
static int l_gc(lua_State *L) {
  report(L, check_task(L, 1), 1);
  return 0;
}

static int l_tostring(lua_State *L) {
  struct dr_task *t = check_task(L, 1);
  lua_pushfstring(L, "task %p (%s)", (void *)t, state_names[t->state]);
  return 1;
}

// task:status() -> "new" | "running" | "waiting" | "done" | "failed"
static int l_status(lua_State *L) {
  lua_pushstring(L, state_names[check_task(L, 1)->state]);
  return 1;
}

static int slept(lua_State *L, int status, lua_KContext ctx) {
  (void)L, (void)status, (void)ctx;
  return 0;
}

static int l_sleep(lua_State *L) {
  double seconds = luaL_checknumber(L, 1);
  luaL_argcheck(L, seconds >= 0, 1, "a sleep is a number of seconds of at least 0");
  struct dr_wait *w = lua_newuserdatauv(L, sizeof *w, 0);
  *w = (struct dr_wait){0};
  return dr_wait(L, w, lua_gettop(L), seconds, slept, 0);
}

static int l_current(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_of(L);
  if (!rt->current) return 0;
  push_handle(L, rt->current);
  return 1;
}

// ---- registration ------------------------------------------------------------------------------

struct dr_task *dr_root_new(struct dr_runtime *rt) {
  struct dr_task *t = calloc(1, sizeof *t);
  if (t) *t = (struct dr_task){.rt = rt, .state = RUNNING};
  return t;
}

void dr_root_free(struct dr_task *t) {
  if (t) close_timer(t);
  free(t);
}

void dr_give_up_tasks(struct dr_runtime *rt) {
  for (struct dr_task *t = rt->tasks; t; t = t->next) close_timer(t);
}

int luaopen_dockrun_core_tasks(lua_State *L) {
  static const luaL_Reg methods[] = {{"await", l_await},   {"cancel", l_cancel}, {"status", l_status},
                                     {"__close", l_close}, {"__gc", l_gc},       {"__tostring", l_tostring},
                                     {NULL, NULL}};
  static const luaL_Reg module[] = {
      {"spawn", l_spawn}, {"sleep", l_sleep}, {"current", l_current}, {"limit", l_limit}, {NULL, NULL}};
  luaL_newmetatable(L, TASK);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  dr_patch_coroutine(L);
  luaL_newlib(L, module);
  return 1;
}
