// A queue between fibers: push never waits, pop waits for a value.
#include <errno.h>
#include <lauxlib.h>

#include "data/error.h"
#include "data/lua_util.h"
#include "runtime/runtime.h"

static const char QUEUE[] = "dockrun.queue";

struct popper {
  struct dr_wait wait;
  struct queue *queue;
  struct popper *next;
  double deadline;  // on the clock of uv_hrtime in seconds; below 0: none
};

struct queue {
  lua_Integer first, last;  // indices of the oldest and the newest value in the user value
  struct popper *poppers;   // in the order they came
  bool closed;
};

static struct queue *check_queue(lua_State *L) { return luaL_checkudata(L, 1, QUEUE); }

static void popper_enter(struct dr_wait *w) {
  struct popper *p = (struct popper *)w, **at = &p->queue->poppers;
  while (*at) at = &(*at)->next;
  *at = p;
}

static void popper_leave(struct dr_wait *w) {
  struct popper *p = (struct popper *)w;
  for (struct popper **at = &p->queue->poppers; *at; at = &(*at)->next) {
    if (*at != p) continue;
    *at = p->next;
    return;
  }
}

static void queue_wake_first(struct queue *q) {
  if (!q->poppers) return;
  struct popper *p = q->poppers;
  q->poppers = p->next;
  dr_wake(&p->wait);
}

// queue:push(value): true, or false once the queue is closed
static int l_push(lua_State *L) {
  struct queue *q = check_queue(L);
  luaL_argcheck(L, !lua_isnoneornil(L, 2), 2, "a queue holds no nil");
  if (!q->closed) {
    lua_settop(L, 2);
    lua_getiuservalue(L, 1, 1);
    lua_insert(L, 2);
    lua_rawseti(L, 2, q->last + 1);
    q->last++;
    queue_wake_first(q);
  }
  lua_pushboolean(L, !q->closed);
  return 1;
}

static double queue_now(void) { return (double)uv_hrtime() / 1e9; }

static int queue_popped(lua_State *L, int status, lua_KContext ctx);

static int queue_pop(lua_State *L, double timeout) {
  struct queue *q = check_queue(L);
  if (q->first > q->last && !q->closed) {
    struct popper *p = lua_newuserdatauv(L, sizeof *p, 1);
    *p = (struct popper){.queue = q,
                         .wait = {.what = "a queue", .start = popper_enter, .stop = popper_leave},
                         .deadline = timeout < 0 ? -1 : queue_now() + timeout};
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_replace(L, 2);
    lua_settop(L, 2);
    return dr_wait(L, &p->wait, 2, timeout, queue_popped, 0);
  }
  if (q->first > q->last) {
    lua_pushnil(L);  // closed and empty
    return 1;
  }
  lua_getiuservalue(L, 1, 1);
  lua_rawgeti(L, -1, q->first);
  lua_pushnil(L);
  lua_rawseti(L, -3, q->first++);
  if (q->first > q->last) q->first = 1, q->last = 0;
  return 1;
}

static int queue_popped(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct queue *q = check_queue(L);
  struct popper *p = lua_touserdata(L, 2);
  if (q->first > q->last && p->wait.outcome == DR_TIMED_OUT) {
    struct dr_error e;
    dr_fail(&e, "timeout", ETIMEDOUT, "nothing came through the queue in time");
    return dr_return_error(L, &e);
  }
  double left = p->deadline - queue_now();  // another fiber may have been quicker: then it waits again
  return queue_pop(L, p->deadline < 0 ? -1 : left > 0 ? left : 0);
}

// queue:pop([timeout]) -> value | nil once closed and empty | nil, err (kind "timeout")
static int l_pop(lua_State *L) {
  double timeout = dr_opt_seconds(L, 2, -1);
  lua_settop(L, 2);
  return queue_pop(L, timeout);
}

// queue:close(): what is in it can still be popped
static int l_close(lua_State *L) {
  struct queue *q = check_queue(L);
  q->closed = true;
  while (q->poppers) queue_wake_first(q);
  return 0;
}

static int l_len(lua_State *L) {
  struct queue *q = check_queue(L);
  lua_pushinteger(L, q->last - q->first + 1);
  return 1;
}

static int l_tostring(lua_State *L) {
  struct queue *q = check_queue(L);
  lua_pushfstring(L, "queue (%I waiting%s)", (LUAI_UACINT)(q->last - q->first + 1), q->closed ? ", closed" : "");
  return 1;
}

static int l_new(lua_State *L) {
  struct queue *q = lua_newuserdatauv(L, sizeof *q, 1);
  *q = (struct queue){.first = 1};
  luaL_setmetatable(L, QUEUE);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  return 1;
}

int luaopen_dockrun_core_queue(lua_State *L) {
  static const luaL_Reg methods[] = {{"push", l_push},     {"pop", l_pop},   {"close", l_close},
                                     {"__close", l_close}, {"__len", l_len}, {"__tostring", l_tostring},
                                     {NULL, NULL}};
  static const luaL_Reg module[] = {{"new", l_new}, {NULL, NULL}};
  luaL_newmetatable(L, QUEUE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
