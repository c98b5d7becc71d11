// The runtime: one Lua state and one libuv loop. Scripts are coroutines (fibers); a primitive that has to wait parks
// its fiber, and the loop makes it ready again. Lua runs outside of libuv's and libcurl's callbacks: those only wake
// waits.
#ifndef DOCKRUN_RUNTIME_H
#define DOCKRUN_RUNTIME_H

#include <lua.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <uv.h>

struct dr_budget;
struct dr_input;
struct dr_output;
struct dr_fiber;

enum dr_outcome { DR_PENDING, DR_WOKEN, DR_TIMED_OUT, DR_CANCELLED };

// Something a fiber waits for. Lives inside a primitive's own userdata; zero-initialised.
struct dr_wait {
  struct dr_fiber *fiber;  // who waits, NULL while nobody does
  enum dr_outcome outcome;
  void (*start)(struct dr_wait *w);  // begins, once nothing can raise any more; may be NULL
  void (*stop)(struct dr_wait *w);   // gives the work up when the wait ends by time-out or cancel; may be NULL
  lua_KFunction k;
  lua_KContext ctx;
};

// One run of dr_run_main, in the frame of the function that runs it. They nest: a fiber may call a function of C that
// runs another. A fiber belongs to the run in which it was spawned, and ends with it.
struct dr_run {
  struct dr_run *outer;
  unsigned long id;          // from 1; a fiber of no run has 0, and lives as long as the state
  struct dr_fiber *main;     // what it runs, which a signal cancels; NULL: nothing yet
  bool given_up;             // a signal came while it waited for its other fibers: it waits no longer
  struct dr_fiber *current;  // those of the code around it
  lua_State *running;
};

enum { DR_SIGNALS = 7 };  // that are caught

struct dr_runtime {
  lua_State *L;  // the main thread
  pid_t pid;     // the process that made it; a copy in a child of fork() can do nothing
  uv_loop_t loop;
  bool in_uv;  // inside uv_run, which must not be entered twice
  struct dr_fiber *current;
  lua_State *running;     // the innermost coroutine of the current fiber
  struct dr_fiber *root;  // stands for code outside of any fiber
  struct dr_run *run;     // the innermost, or NULL
  unsigned long runs_made;
  struct dr_fiber *fibers;
  struct dr_fiber *ready_first, *ready_last;
  uv_async_t signal_async;
  volatile sig_atomic_t signal;  // that nothing has heard yet, or 0
  time_t signalled;              // when it came, by CLOCK_MONOTONIC
  volatile sig_atomic_t ignores_hangup;
  struct sigaction handlers[DR_SIGNALS];  // those that were in place of ours
  unsigned long rounds, signal_round;     // of the loop: all, and the one in which a signal met a fiber that ran
  int stuck_signal;                       // that signal
  lua_Integer stuck_steps;                // that the fiber has made since, inside of functions of C
  struct dr_loop_run *runs;               // who called uv.run()
  lua_Alloc allocate;                     // the state's own, see limits.h
  void *allocate_ud;
  struct dr_output *output;  // of output.h; NULL until something is written
  struct dr_input *input;    // NULL until something is read
  // End these two, after the loop; NULL while there is nothing to end.
  void (*end_output)(struct dr_runtime *rt), (*end_input)(struct dr_runtime *rt);
  bool (*wake_runs)(struct dr_runtime *rt, bool idle);  // of luv.c, after a round: whether it woke a fiber; or NULL
  int64_t memory;                                       // what Lua holds more than when the runtime was made
};

// The runtime of a Lua state, or NULL.
struct dr_runtime *dr_runtime_get(lua_State *L);

// Makes it, unless it exists. Raises if it cannot be made.
struct dr_runtime *dr_runtime_new(lua_State *L);
void dr_runtime_set(lua_State *L);  // makes the userdata at the top, which it pops, the runtime

// Waits until w is woken, at most `timeout` seconds (below 0: for ever), then calls k(L, LUA_YIELD, ctx), which returns
// the primitive's results and finds the outcome in w. A cancel raises instead. The value at `anchor` owns w and is
// kept. Use as `return dr_wait(…)`. In a fiber it yields; elsewhere it runs the loop until done.
int dr_wait(lua_State *L, struct dr_wait *w, int anchor, double timeout, lua_KFunction k, lua_KContext ctx);

// Ends a wait, if there is one. Safe in any callback; runs no Lua.
void dr_wake(struct dr_wait *w);

// Calls the function below nargs arguments on L as the main fiber of a run and runs the loop until it is done and every
// other fiber of the run was cancelled and ended. Returns LUA_OK with the results on L, or LUA_ERRRUN with the error
// value and the traceback.
int dr_run_main(lua_State *L, struct dr_run *run, int nargs);

// Whether this is a copy in another process: its descriptors are shared with the process that it belongs to, and so is
// what the kernel knows of them.
bool dr_is_copy(const struct dr_runtime *rt);
extern const char dr_copy_refused[];

// Frees the memory of a copy, and closes or ends nothing: no finalizer of a module runs.
void dr_free_copy(struct dr_runtime *rt);

// Around dr_run_main, whether or not it raised.
void dr_run_enter(struct dr_runtime *rt, struct dr_run *run);
void dr_run_leave(struct dr_runtime *rt, struct dr_run *run);

// The run that code belongs to which runs now, or 0.
unsigned long dr_run_id(const struct dr_runtime *rt);

// Makes SIGINT, SIGTERM and SIGHUP cancel the main fibers, until the state is closed. -EBUSY where another state has
// them.
int dr_catch_signals(struct dr_runtime *rt);

// Does what this signal does when it is caught, without the signal. Safe in any callback, and in a signal handler.
void dr_signal(struct dr_runtime *rt, int signal);

// What the next instruction of Lua does if a signal has come: for a function of C that takes long, and has made so many
// steps since its last call of this.
void dr_hear_signal(lua_State *L, lua_Integer steps);

// ---- between runtime.c, luv.c, wait.c, fiber.c and coroutine.c alone ----

extern const char dr_parked;  // its address is what a parked coroutine yields, so that coroutine.resume passes it on
// Runs the loop until w ended: for code that cannot yield.
void dr_run_until_woken(lua_State *L, struct dr_wait *w);
struct dr_wait *dr_fiber_wait(const struct dr_fiber *f);
void dr_patch_coroutine(lua_State *L);
void dr_restore_hook(lua_State *L);  // after another hook was in its place: that of the current fiber's limits, or none
struct dr_fiber *dr_root_new(struct dr_runtime *rt);
void dr_root_free(struct dr_fiber *f);
void dr_give_up_fibers(struct dr_runtime *rt);  // the state is closing: their timers go, nothing of them runs again
void dr_run_ready(struct dr_runtime *rt, lua_State *from);
void dr_cancel(lua_State *L, struct dr_fiber *f, int reason);  // reason: stack index, or 0
void dr_end(lua_State *L, struct dr_fiber *f);                 // a cancel that one with limits cannot catch
void dr_interrupt(struct dr_fiber *f, int signal);             // a cancel by a signal; runs no Lua
bool dr_is_parked(lua_State *co);                              // waits in a fiber, which alone may resume it
bool dr_fiber_ended(const struct dr_fiber *f);
// Function and arguments at the top are replaced by the handle.
struct dr_fiber *dr_spawn(lua_State *L, int nargs, bool unlimited);
struct dr_fiber *dr_spawn_main(lua_State *L, int nargs, unsigned long run);
unsigned long dr_fiber_run(const struct dr_fiber *f);
bool dr_fiber_results(lua_State *L, struct dr_fiber *f, int handle);
struct dr_fiber *dr_fiber_next(const struct dr_fiber *f);
int luaopen_dockrun_core_fibers(lua_State *L);
int dr_luv_callback(lua_State *L, int nargs, int nresults, int flags);
void dr_preload_luv(lua_State *L);                     // lets require "luv" find it, on our loop
void dr_settle_loop(struct dr_runtime *rt);            // lets go of the handles that were closed: see l_exit
bool dr_step(struct dr_runtime *rt, lua_State *from);  // false where nothing can ever happen again

int luaopen_dockrun_core_runtime(lua_State *L);
int luaopen_dockrun_core_queue(lua_State *L);

#endif
