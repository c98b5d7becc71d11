// The rooms of fibers: wait.c (whose turn it is, what they wait for), fiber.c (their life), task_lua.c (the border).
#ifndef DOCKRUN_FIBER_H
#define DOCKRUN_FIBER_H

#include "runtime/runtime.h"

enum dr_state { DR_NEW, DR_RUNNING, DR_WAITING, DR_DONE, DR_FAILED };

enum { DR_THREAD = 1, DR_RESULTS, DR_TRACEBACK, DR_REASON, DR_USER_VALUES = DR_REASON };  // user values of a handle

// A fiber that waits for another's end.
struct dr_join {
  struct dr_wait wait;
  struct dr_fiber *target;
  struct dr_join *next;
};

struct dr_fiber {
  struct dr_runtime *rt;
  lua_State *co;
  enum dr_state state;
  bool cancel_pending, observed;  // observed: somebody has seen how it ended
  int signal;                     // the cancel comes from it; 0: from a fiber
  int nargs;
  struct dr_wait *wait;
  uv_timer_t *timer;  // made when first needed
  struct dr_join *joins;
  unsigned long run;             // see struct dr_run
  struct dr_fiber *next, *prev;  // all live fibers
  struct dr_fiber *next_ready;
  bool queued;
  bool blocked;              // waits in a loop of its own, because it could not yield
  struct dr_budget *budget;  // see limits.h; NULL: it has no limits
};

// ---- wait.c ----

void dr_make_ready(struct dr_fiber *f);
void dr_close_timer(struct dr_fiber *f);
void dr_push_cancel(lua_State *L, struct dr_fiber *f);  // the error with which f was cancelled
void dr_cancel_wait(struct dr_fiber *f);                // at once where it waits, else at its next wait

// ---- fiber.c ----

extern const char dr_fiber_type[];                            // its metatable's name
void dr_push_handle(lua_State *L, const struct dr_fiber *f);  // of a live fiber: the registry keeps it
void dr_report(lua_State *L, struct dr_fiber *f, int handle);
void dr_kill(lua_State *L, struct dr_fiber *f,
             const char *why);  // it and all that share its limits, whatever they catch

#endif
