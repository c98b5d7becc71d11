// Waiting: the queue of fibers that are ready, time-outs, and dr_wait, which parks a fiber.
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/error.h"
#include "data/lua_util.h"
#include "runtime/budget.h"
#include "runtime/fiber.h"

const char dr_parked;

struct dr_wait *dr_fiber_wait(const struct dr_fiber *f) {
  return f->wait;
}

bool dr_is_parked(lua_State *co) { return lua_gettop(co) > 0 && lua_touserdata(co, -1) == &dr_parked; }

// ---- tracing -----------------------------------------------------------------------------------

void dr_trace(const struct dr_fiber *f, const char *event, const char *what) {
  fprintf(stderr, "dockrun: fiber %lu %s%s%s\n", f->id, event, what ? " " : "", what ? what : "");
}

// ---- the ready queue ---------------------------------------------------------------------------

void dr_make_ready(struct dr_fiber *f) {
  struct dr_runtime *rt = f->rt;
  if (rt->in_uv) uv_stop(&rt->loop);  // the loop must not poll now, or the fiber would wait for that poll
  if (f->queued || f->blocked || f == rt->root) return;
  f->queued = true;
  f->next_ready = NULL;
  *(rt->ready_last ? &rt->ready_last->next_ready : &rt->ready_first) = f;
  rt->ready_last = f;
}

// ---- waiting -----------------------------------------------------------------------------------

static void wait_settle(struct dr_wait *w, enum dr_outcome outcome) {
  static const char *const outcomes[] = {NULL, "is woken", "timed out", "is cancelled"};
  w->outcome = outcome;
  if (w->fiber->rt->traces) dr_trace(w->fiber, outcomes[outcome], NULL);
  if (w->fiber->timer) uv_timer_stop(w->fiber->timer);
  if (outcome != DR_WOKEN && w->stop) w->stop(w);
}

static void wait_end(struct dr_wait *w, enum dr_outcome outcome) {
  if (!w->fiber || w->outcome != DR_PENDING) return;
  wait_settle(w, outcome);
  dr_make_ready(w->fiber);
}

void dr_wake(struct dr_wait *w) { wait_end(w, DR_WOKEN); }

static void wait_on_timer(uv_timer_t *timer) {
  struct dr_fiber *f = timer->data;
  if (f->wait) wait_end(f->wait, DR_TIMED_OUT);
}

void dr_free_handle(uv_handle_t *handle) { free(handle); }

void dr_close_timer(struct dr_fiber *f) {
  if (f->timer) uv_close((uv_handle_t *)f->timer, dr_free_handle);
  f->timer = NULL;
}

// The length for a timer that must not end early. The loop's clock counts whole milliseconds and is behind, so the end
// is rounded up on that clock; a rounded length would end early. The loop's clock is read first: if the process is
// stopped between the two, the end is still in the future.
static uint64_t wait_ms(uv_loop_t *loop, double seconds) {
  if (seconds <= 0) return 0;
  if (seconds > 1e9) return (uint64_t)1e15;
  uv_update_time(loop);
  uint64_t end = uv_hrtime() + (uint64_t)ceil(seconds * 1e9);
  return (end + 999999) / 1000000 - uv_now(loop);
}

static void wait_start_timer(lua_State *L, struct dr_fiber *f, double seconds) {
  if (!f->timer) {
    f->timer = malloc(sizeof *f->timer);
    if (!f->timer) luaL_error(L, "out of memory");
    uv_timer_init(&f->rt->loop, f->timer);
    f->timer->data = f;
  }
  uv_timer_start(f->timer, wait_on_timer, wait_ms(&f->rt->loop, seconds), 0);
}

static void wait_detach(lua_State *L, struct dr_wait *w) {
  if (w->fiber) w->fiber->wait = NULL;
  w->fiber = NULL;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, w);
}

// For a coroutine that was closed while it waited.
static void wait_abandon(lua_State *L, struct dr_wait *w) {
  if (w->outcome == DR_PENDING) wait_settle(w, DR_CANCELLED);
  wait_detach(L, w);
}

void dr_push_cancel(lua_State *L, struct dr_fiber *f) {
  const char *spent = dr_budget_spent(f->budget);
  f->cancel_pending = false;
  if (spent) {
    dr_push_error_text(L, "cancelled", 0, spent, strlen(spent));
    return;
  }
  if (f->signal) {
    dr_interrupted(L, f->signal);
    f->signal = 0;
    return;
  }
  if (f != f->rt->root) {
    dr_push_handle(L, f);
    bool given = lua_getiuservalue(L, -1, DR_REASON) != LUA_TNIL;
    lua_remove(L, given ? -2 : -1);
    if (given) return;
    lua_pop(L, 1);
  }
  dr_push_error_text(L, "cancelled", 0, "cancelled", strlen("cancelled"));
}

static int wait_raise_cancel(lua_State *L, struct dr_fiber *f) {
  if (f->budget) dr_budget_watch(L, f->budget);
  dr_push_cancel(L, f);
  return lua_error(L);
}

void dr_cancel_wait(struct dr_fiber *f) {
  if (f->wait && f->wait->outcome == DR_PENDING)
    wait_end(f->wait, DR_CANCELLED);
  else
    f->cancel_pending = true;
}

static int wait_finish(lua_State *L, struct dr_wait *w) {
  struct dr_fiber *f = w->fiber;
  wait_detach(L, w);
  if (w->outcome == DR_CANCELLED) return wait_raise_cancel(L, f);
  return w->k(L, LUA_YIELD, w->ctx);
}

static int wait_resumed(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  return wait_finish(L, (struct dr_wait *)ctx);
}

void dr_run_until_woken(lua_State *L, struct dr_wait *w) {
  struct dr_runtime *rt = w->fiber->rt;
  struct dr_fiber *current = rt->current;
  lua_State *running = rt->running;
  struct dr_fiber *f = w->fiber;
  f->blocked = true;
  rt->current = NULL;
  rt->running = NULL;
  while (w->outcome == DR_PENDING && dr_step(rt, L)) {}
  if (f == rt->root) dr_settle_loop(rt);
  f->blocked = false;
  rt->current = current;
  rt->running = running;
  if (w->outcome != DR_PENDING) return;
  wait_abandon(L, w);
  luaL_error(L, "deadlock: waiting, but no timer, connection or fiber is pending");
}

int dr_wait(lua_State *L, struct dr_wait *w, int anchor, double timeout, lua_KFunction k, lua_KContext ctx) {
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_fiber *f = rt->current ? rt->current : rt->root;
  bool yields = rt->current && lua_isyieldable(L);
  if (!rt->L) return luaL_error(L, "cannot wait: the state is closing");
  if (dr_is_copy(rt)) return luaL_error(L, "%s", dr_copy_refused);
  if (w->fiber) return luaL_error(L, "another fiber waits for this already");
  if (!yields && rt->in_uv) return luaL_error(L, "cannot wait inside of a callback that cannot yield; use spawn()");
  if (!yields && f->budget)  // it would delay every other such wait
    return luaL_error(L, "cannot wait inside of a function of C that calls back, such as string.gsub");
  if (f->wait) wait_abandon(L, f->wait);
  if (timeout >= 0) wait_start_timer(L, f, timeout);
  lua_pushvalue(L, anchor);
  lua_rawsetp(L, LUA_REGISTRYINDEX, w);
  w->fiber = f;
  w->outcome = DR_PENDING;
  w->k = k;
  w->ctx = ctx;
  f->wait = w;
  if (f->cancel_pending || dr_budget_spent(f->budget)) {
    wait_settle(w, DR_CANCELLED);
    return wait_finish(L, w);
  }
  if (w->start) w->start(w);
  if (rt->traces) dr_trace(f, "waits for", w->what);
  if (yields) {
    lua_pushlightuserdata(L, (void *)&dr_parked);
    return lua_yieldk(L, 1, (lua_KContext)w, wait_resumed);
  }
  dr_run_until_woken(L, w);
  return wait_finish(L, w);
}
