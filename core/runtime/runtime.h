// The runtime: one Lua state and one libuv loop. Scripts run in fibers, which are coroutines. A primitive that has to
// wait parks its fiber, and the loop makes the fiber ready again. Lua never runs inside of a callback of libuv or
// libcurl: callbacks only wake waits.
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

// What a fiber waits for. It is part of a primitive's own userdata, and zero-initialised.
//
// While `fiber` is set, the fiber's `wait` is this wait, and the registry keeps the userdata. Only wait.c writes
// `fiber` and `outcome`: DR_PENDING from dr_wait until the first of wake, time-out and cancel; the fiber runs after
// that, and k sees the outcome.
struct dr_wait {
  struct dr_fiber *fiber;  // that waits, or NULL
  const char *what;        // for the trace: "a queue"
  enum dr_outcome outcome;
  void (*start)(struct dr_wait *w);  // begins the work, when nothing can raise any longer; may be NULL
  void (*stop)(struct dr_wait *w);   // gives up the work after a time-out or cancel; may be NULL
  lua_KFunction k;
  lua_KContext ctx;
};

// One run of dr_run_main, in the frame of its caller. Runs nest: a fiber may call a function of C that begins another
// run. A fiber belongs to the run in which it was spawned, and ends with it.
struct dr_run {
  struct dr_run *outer;
  unsigned long id;          // from 1; a fiber outside of any run has 0, and lives as long as the state
  struct dr_fiber *main;     // which a signal interrupts; NULL at first
  bool given_up;             // a signal came while it waited for its other fibers: stop waiting
  struct dr_fiber *current;  // of the code around it
  lua_State *running;
};

enum { DR_SIGNALS = 7 };  // number of signals that are caught

struct dr_runtime {
  lua_State *L;  // the main thread
  pid_t pid;     // of the process that made it; a copy in a child of fork() does nothing
  uv_loop_t loop;
  bool in_uv;  // inside uv_run, which must not be entered twice
  struct dr_fiber *current;
  lua_State *running;     // the innermost coroutine of the current fiber
  struct dr_fiber *root;  // for code outside of any fiber
  struct dr_run *run;     // the innermost, or NULL
  unsigned long runs_made, fibers_made;
  bool traces;  // DOCKRUN_TRACE=fibers
  struct dr_fiber *fibers;
  struct dr_fiber *ready_first, *ready_last;
  uv_async_t signal_async;
  volatile sig_atomic_t signal;  // not handled yet, or 0
  time_t signalled;              // when it came, by CLOCK_MONOTONIC
  volatile sig_atomic_t ignores_hangup;
  struct sigaction handlers[DR_SIGNALS];  // the handlers before ours
  unsigned long rounds, signal_round;     // of the loop: how many, and in which one a signal met a running fiber
  int stuck_signal;                       // that signal
  lua_Integer stuck_steps;                // of that fiber since, inside of functions of C
  struct dr_loop_run *runs;               // the calls of uv.run() that wait
  struct dr_budget *strict;               // the strict budget in force, or NULL
  lua_Alloc allocate;                     // the state's own allocator, see budget.h
  void *allocate_ud;
  struct dr_output *output;  // of output.h; NULL until something is written
  struct dr_input *input;    // NULL until something is read
  // End these two, after the loop; NULL while there is nothing to end.
  void (*end_output)(struct dr_runtime *rt), (*end_input)(struct dr_runtime *rt);
  bool (*wake_runs)(struct dr_runtime *rt, bool idle);  // of luv.c, after a round: whether it woke a fiber; or NULL
  int64_t memory;                                       // bytes of Lua more than when the runtime was made
};

// The runtime of a Lua state, or NULL.
struct dr_runtime *dr_runtime_get(lua_State *L);

// Makes it, unless it exists. Raises if it cannot be made.
struct dr_runtime *dr_runtime_new(lua_State *L);
void dr_runtime_set(lua_State *L);  // makes the userdata at the top, which it pops, the runtime

// Waits until w is woken, at most `timeout` seconds (below 0: without a limit). Then it calls k(L, LUA_YIELD, ctx),
// which finds the outcome in w and returns the results of the primitive. A cancel raises instead. The value at `anchor`
// owns w and is kept. Use it as `return dr_wait(…)`. In a fiber it yields; elsewhere it runs the loop until the end.
int dr_wait(lua_State *L, struct dr_wait *w, int anchor, double timeout, lua_KFunction k, lua_KContext ctx);

// For uv_close, of a handle that malloc made.
void dr_free_handle(uv_handle_t *handle);

// Ends a wait, if it is pending. Safe in any callback; runs no Lua.
void dr_wake(struct dr_wait *w);

// Calls the function below nargs arguments on L as the main fiber of a run and runs the loop until it is done and every
// other fiber of the run was cancelled and ended. Returns LUA_OK with the results on L, or LUA_ERRRUN with the error
// value and the traceback.
int dr_run_main(lua_State *L, struct dr_run *run, int nargs);

// Whether this is a copy in a child of fork(). It shares its descriptors, and their state in the kernel, with the
// parent.
bool dr_is_copy(const struct dr_runtime *rt);
extern const char dr_copy_refused[];

// Frees the memory of a copy, and closes nothing: no finalizer of a module runs.
void dr_free_copy(struct dr_runtime *rt);

// Around dr_run_main, whether or not it raised.
void dr_run_enter(struct dr_runtime *rt, struct dr_run *run);
void dr_run_leave(struct dr_runtime *rt, struct dr_run *run);

// The run of the code that runs now, or 0.
unsigned long dr_run_id(const struct dr_runtime *rt);

// Makes SIGINT, SIGTERM and SIGHUP cancel the main fibers until the state is closed. -EBUSY if another state has them.
int dr_catch_signals(struct dr_runtime *rt);

// Has the effect of a caught signal. Safe in any callback, and in a signal handler.
void dr_signal(struct dr_runtime *rt, int signal);

// Handles a signal that has come. For a function of C that takes long; `steps` is what it did since its last call of
// this.
void dr_hear_signal(lua_State *L, lua_Integer steps);

// ---- only between runtime.c, luv.c, wait.c, fiber.c and coroutine.c ----

extern const char dr_parked;  // a parked coroutine yields its address, and coroutine.resume passes that on
// Runs the loop until w has ended: for code that cannot yield.
void dr_run_until_woken(lua_State *L, struct dr_wait *w);
struct dr_wait *dr_fiber_wait(const struct dr_fiber *f);
void dr_patch_coroutine(lua_State *L);
void dr_restore_hook(lua_State *L);  // sets the hook of the current fiber's budget again, or none
struct dr_fiber *dr_root_new(struct dr_runtime *rt);
void dr_root_free(struct dr_fiber *f);
void dr_give_up_fibers(struct dr_runtime *rt);  // the state is closing: no fiber runs again
void dr_run_ready(struct dr_runtime *rt, lua_State *from);
void dr_cancel(lua_State *L, struct dr_fiber *f, int reason);  // reason: stack index, or 0
void dr_end(lua_State *L, struct dr_fiber *f);                 // a cancel; a fiber with a budget cannot catch it
void dr_interrupt(struct dr_fiber *f, int signal);             // a cancel by a signal; runs no Lua
bool dr_is_parked(lua_State *co);                              // whether it waits, so that only its fiber may resume it
bool dr_fiber_ended(const struct dr_fiber *f);
// Function and arguments at the top are replaced by the handle.
struct dr_fiber *dr_spawn(lua_State *L, int nargs, bool unlimited);
struct dr_fiber *dr_spawn_main(lua_State *L, int nargs, unsigned long run);
unsigned long dr_fiber_run(const struct dr_fiber *f);
bool dr_fiber_results(lua_State *L, struct dr_fiber *f, int handle);
struct dr_fiber *dr_fiber_next(const struct dr_fiber *f);
int luaopen_dockrun_core_fibers(lua_State *L);
int dr_luv_callback(lua_State *L, int nargs, int nresults, int flags);
void dr_preload_luv(lua_State *L);                     // makes require "luv" use our loop
void dr_settle_loop(struct dr_runtime *rt);            // frees handles that were closed
bool dr_step(struct dr_runtime *rt, lua_State *from);  // false if nothing is pending

#endif
