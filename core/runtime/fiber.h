// Fibers: wait.c (ready queue and waits), fiber.c (their life), fiber_lua.c (the binding).
#ifndef DOCKRUN_FIBER_H
#define DOCKRUN_FIBER_H

#include "runtime/runtime.h"

enum dr_state { DR_NEW, DR_RUNNING, DR_WAITING, DR_DONE, DR_FAILED };

enum { DR_THREAD = 1, DR_RESULTS, DR_TRACEBACK, DR_REASON, DR_USER_VALUES = DR_REASON };  // user values of a handle

// The wait for the end of another fiber.
struct dr_join {
  struct dr_wait wait;
  struct dr_fiber *target;
  struct dr_join *next;
};

// Invariants:
// * state: NEW until its first resume; RUNNING while it is on the C stack, even if it runs the loop inside of itself
//   (blocked); WAITING between two resumes; then DONE or FAILED for ever. fiber.c writes it.
// * co is set until the end. While WAITING, the top of co is the mark &dr_parked, so that only fiber.c resumes it.
// * wait is set from dr_wait until its outcome was handled; wait.c writes it. A WAITING fiber without a pending wait is
//   queued. queued and next_ready belong to wait.c and dr_run_ready; blocked excludes queued, because the loop inside
//   of the fiber sees the outcome itself. The root fiber is never queued.
// * rt->current is the innermost RUNNING fiber, rt->running its innermost coroutine; both are NULL while the loop
// polls.
// * The registry keeps the handle (by the fiber's address) while the fiber lives; afterwards only its users do.
struct dr_fiber {
  unsigned long id;  // from 1, for the trace; the root has 0
  struct dr_runtime *rt;
  lua_State *co;
  enum dr_state state;
  bool cancel_pending, observed;  // observed: its end was seen, so it is not reported
  int signal;                     // that cancels it; 0: a fiber does
  int nargs;
  struct dr_wait *wait;
  uv_timer_t *timer;  // made at the first time-out
  struct dr_join *joins;
  unsigned long run;             // see struct dr_run
  struct dr_fiber *next, *prev;  // all live fibers
  struct dr_fiber *next_ready;
  bool queued;
  bool blocked;              // runs the loop inside of itself, because it could not yield
  struct dr_budget *budget;  // NULL: no limits
};

// ---- wait.c ----

void dr_make_ready(struct dr_fiber *f);
// Prints "dockrun: fiber 3 waits for a queue". Only if rt->traces.
void dr_trace(const struct dr_fiber *f, const char *event, const char *what);
void dr_close_timer(struct dr_fiber *f);
void dr_push_cancel(lua_State *L, struct dr_fiber *f);  // the error with which f was cancelled
void dr_cancel_wait(struct dr_fiber *f);                // now if it waits, else at its next wait

// ---- fiber.c ----

extern const char dr_fiber_type[];                            // its metatable's name
void dr_push_handle(lua_State *L, const struct dr_fiber *f);  // of a live fiber
void dr_report(lua_State *L, struct dr_fiber *f, int handle);
void dr_kill(lua_State *L, struct dr_fiber *f,
             const char *why);  // the fiber and all that share its budget; they cannot catch it

#endif
