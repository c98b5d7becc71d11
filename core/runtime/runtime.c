// The runtime of a Lua state: its loop, the runs of scripts, and signals. dockrun.core.runtime.
#include "runtime/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/error.h"
#include "data/lua_util.h"
#include "runtime/budget.h"

static const char RUNTIME[] = "dockrun.runtime";
static struct dr_runtime *interrupted;  // the one that catches signals: a signal handler has no other way to know

// ---- the loop ----------------------------------------------------------------------------------

static void run_uv(struct dr_runtime *rt, uv_run_mode mode) {
  rt->in_uv = true;
  uv_run(&rt->loop, mode);
  rt->in_uv = false;
}

void dr_settle_loop(struct dr_runtime *rt) { run_uv(rt, UV_RUN_NOWAIT); }

bool dr_step(struct dr_runtime *rt, lua_State *from) {
  rt->rounds++;
  if (rt->ready_first) {
    dr_run_ready(rt, from);
    run_uv(rt, UV_RUN_NOWAIT);
    return true;
  }
  bool alive = uv_loop_alive(&rt->loop);
  if (alive) run_uv(rt, UV_RUN_ONCE);
  return (rt->wake_runs && rt->wake_runs(rt, !alive)) || alive;
}

// ---- signals -----------------------------------------------------------------------------------

// Interrupts the main fiber of every run: of the script, and of runs inside of it.
static void interrupt_runs(struct dr_runtime *rt, int signal, const struct dr_fiber *but) {
  for (struct dr_run *run = rt->run; run; run = run->outer) {
    if (!run->main || run->main == but) continue;
    if (dr_fiber_ended(run->main))
      run->given_up = true;  // its other fibers do not end by themselves: stop waiting for them
    else
      dr_interrupt(run->main, signal);
  }
}

static void on_signal_async(uv_async_t *async) {
  struct dr_runtime *rt = async->data;
  int signal = rt->signal;
  rt->signal = 0;
  if (signal) interrupt_runs(rt, signal, NULL);
}

enum { STUCK = 10 * 1000 * 1000 };  // instructions

// While a fiber runs without end, the main fiber cannot be interrupted: this fiber is, in its place.
static void on_stuck_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct dr_runtime *rt = dr_runtime_get(L);
  dr_restore_hook(L);
  if (rt->rounds != rt->signal_round) return;  // it has waited since
  dr_interrupted(L, rt->stuck_signal);
  lua_error(L);
}

static bool run_is_main(const struct dr_runtime *rt, const struct dr_fiber *f) {
  const struct dr_run *run = rt->run;
  while (run && run->main != f) run = run->outer;
  return f && run;
}

// Runs at the next instruction of Lua, for a signal that came while Lua ran.
static void on_signal_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (dr_is_protected()) return;  // it runs again right after
  struct dr_runtime *rt = dr_runtime_get(L);
  int signal = rt->signal;
  dr_restore_hook(L);
  rt->signal = 0;
  if (!signal) return;
  interrupt_runs(rt, signal, rt->current);
  if (run_is_main(rt, rt->current)) {
    dr_interrupted(L, signal);
    lua_error(L);
  }
  rt->stuck_signal = signal;
  rt->signal_round = rt->rounds;
  rt->stuck_steps = 0;
  lua_sethook(L, on_stuck_hook, LUA_MASKCOUNT, STUCK);
}

void dr_hear_signal(lua_State *L, lua_Integer steps) {
  struct dr_runtime *rt = dr_runtime_get(L);
  if (rt->signal && rt->running) {
    on_signal_hook(L, NULL);
  } else if (lua_gethook(L) == on_stuck_hook) {
    rt->stuck_steps += steps;
    if (rt->stuck_steps >= STUCK) on_stuck_hook(L, NULL);
  }
}

void dr_signal(struct dr_runtime *rt, int signal) {
  rt->signal = signal;
  uv_async_send(&rt->signal_async);
  // As lua.c does: setting a hook is the one thing that may be done to a running state from here. Not for lines: Lua
  // would call the hook that on_signal_hook leaves behind for the line of the same instruction, at once.
  if (rt->running) lua_sethook(rt->running, on_signal_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

static void restore_signals(struct dr_runtime *rt);

// Whether an earlier signal has waited too long, because one call of C does not return. The next signal then has its
// default effect.
static bool signal_is_deaf(struct dr_runtime *rt) {
  enum { PATIENCE = 3 };  // seconds
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (!rt->signal) rt->signalled = now.tv_sec;
  return now.tv_sec - rt->signalled >= PATIENCE;
}

static void on_signal(int signal) {
  int saved = errno;
  struct dr_runtime *rt = interrupted;
  if (rt && dr_is_copy(rt)) {
    sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    raise(signal);
    return;
  }
  // A terminal that closes sends several, and a service manager sends one after SIGTERM: only the first signal counts.
  bool repeats = rt && signal == SIGHUP && (rt->ignores_hangup || rt->signal);
  if (rt && !repeats && signal_is_deaf(rt)) {
    restore_signals(rt);
    raise(signal);
  } else if (rt && !repeats) {
    rt->ignores_hangup = rt->ignores_hangup || signal == SIGHUP;
    dr_signal(rt, signal);
  }
  errno = saved;
}

// For signals that become an error of a write, or mean nothing here: they must not end a process that has containers to
// stop. A handler, because the programs that we start would inherit SIG_IGN.
static void on_other_signal(int signal) { (void)signal; }

static const struct {
  int signal;
  void (*handler)(int);
  bool may_be_ignored;  // if it was ignored at the start (nohup), it stays ignored
} caught[DR_SIGNALS] = {
    {SIGINT, on_signal, false},        {SIGTERM, on_signal, false},       {SIGHUP, on_signal, true},
    {SIGPIPE, on_other_signal, false}, {SIGXFSZ, on_other_signal, false}, {SIGUSR1, on_other_signal, false},
    {SIGUSR2, on_other_signal, false},
};

static void restore_signals(struct dr_runtime *rt) {
  if (interrupted != rt) return;
  for (size_t i = 0; i < DR_SIGNALS; i++) sigaction(caught[i].signal, &rt->handlers[i], NULL);
  interrupted = NULL;
}

int dr_catch_signals(struct dr_runtime *rt) {
  if (interrupted) return interrupted == rt ? 0 : -EBUSY;
  for (size_t i = 0; i < DR_SIGNALS; i++) {
    struct sigaction action = {.sa_handler = caught[i].handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(caught[i].signal, NULL, &rt->handlers[i]);
    if (caught[i].may_be_ignored && rt->handlers[i].sa_handler == SIG_IGN) continue;
    sigaction(caught[i].signal, &action, NULL);
  }
  interrupted = rt;
  return 0;
}

// ---- after fork() ------------------------------------------------------------------------------

const char dr_copy_refused[] = "this runtime belongs to the process that forked this one; open another one here";

bool dr_is_copy(const struct dr_runtime *rt) { return rt->pid != getpid(); }

// Removes the finalizers of all types: they would end what the parent still uses, such as a lock's socket, a database
// or the descriptors of its loop.
static int drop_finalizers(lua_State *L) {
  for (lua_pushnil(L); lua_next(L, LUA_REGISTRYINDEX); lua_pop(L, 1)) {
    if (!lua_istable(L, -1)) continue;
    lua_pushliteral(L, "__gc");
    lua_pushnil(L);
    lua_rawset(L, -3);
  }
  return 0;
}

void dr_free_copy(struct dr_runtime *rt) {
  lua_State *L = rt->L;
  restore_signals(rt);
  lua_gc(L, LUA_GCSTOP);
  lua_pushcfunction(L, drop_finalizers);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) return;
  dr_uncount_memory(rt, L);
  lua_close(L);
}

// ---- the script --------------------------------------------------------------------------------

unsigned long dr_run_id(const struct dr_runtime *rt) {
  if (rt->current) return dr_fiber_run(rt->current);
  const struct dr_run *run = rt->run;  // in a callback of the loop, whose handle may be older than the inner runs
  while (run && run->outer) run = run->outer;
  return run ? run->id : 0;
}

void dr_run_enter(struct dr_runtime *rt, struct dr_run *run) {
  *run = (struct dr_run){.outer = rt->run, .id = ++rt->runs_made, .current = rt->current, .running = rt->running};
  rt->run = run;
  rt->current = NULL;
  rt->running = NULL;
}

void dr_run_leave(struct dr_runtime *rt, struct dr_run *run) {
  rt->run = run->outer;
  rt->current = run->current;
  rt->running = run->running;
}

// The first fiber of a run from f on.
static struct dr_fiber *run_fiber(const struct dr_run *run, struct dr_fiber *f) {
  while (f && dr_fiber_run(f) != run->id) f = dr_fiber_next(f);
  return f;
}

static void run_cancel_rest(struct dr_runtime *rt, const struct dr_run *run, lua_State *L) {
  for (struct dr_fiber *f = run_fiber(run, rt->fibers), *next; f; f = next) {
    next = run_fiber(run, dr_fiber_next(f));
    dr_end(L, f);
  }
  while (run_fiber(run, rt->fibers) && !run->given_up && dr_step(rt, L)) {}
}

int dr_run_main(lua_State *L, struct dr_run *run, int nargs) {
  struct dr_runtime *rt = dr_runtime_get(L);
  struct dr_fiber *f = run->main = dr_spawn_main(L, nargs, run->id);
  int handle = lua_gettop(L);
  while (!dr_fiber_ended(f)) {
    if (dr_step(rt, L)) continue;
    static const char stuck[] = "deadlock: waiting, but no timer, connection or fiber is pending";
    dr_push_error_text(L, "deadlock", 0, stuck, strlen(stuck));
    dr_cancel(L, f, -1);
    lua_pop(L, 1);
  }
  run_cancel_rest(rt, run, L);
  dr_settle_loop(rt);
  lua_settop(L, handle);  // a function of C in an inner run may have left values there
  bool ok = dr_fiber_results(L, f, handle);
  lua_remove(L, handle);
  return ok ? LUA_OK : LUA_ERRRUN;
}

// ---- birth and end -----------------------------------------------------------------------------

static void runtime_close_handle(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static int l_gc(lua_State *L) {
  struct dr_runtime *rt = luaL_checkudata(L, 1, RUNTIME);
  dr_uncount_memory(rt, L);
  if (!rt->L || rt->in_uv) return 0;  // in a callback of the loop, which then cannot end; the process is about to exit
  rt->L = NULL;
  restore_signals(rt);
  dr_give_up_fibers(rt);
  dr_root_free(rt->root);
  uv_walk(&rt->loop, runtime_close_handle, NULL);
  uv_run(&rt->loop, UV_RUN_DEFAULT);
  uv_loop_close(&rt->loop);
  if (rt->end_input) rt->end_input(rt);
  if (rt->end_output) rt->end_output(rt);
  return 0;
}

// Makes Lua's metatable of large buffers now. If memory ran out while Lua makes it at the first use, it would stay
// incomplete, and no buffer could grow again.
static void make_large_buffer(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinitsize(L, &b, LUAL_BUFFERSIZE + 1);
  luaL_pushresultsize(&b, 0);
  lua_pop(L, 1);
}

// Raises without enough file descriptors: libuv aborts the process if it has none for its signals.
static void check_descriptors(lua_State *L) {
  enum { NEEDED = 8 };  // of the loop, and to read a file
  int fds[NEEDED], count = 0, why = 0;
  while (count < NEEDED && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) count++;
  if (count < NEEDED) why = errno;
  for (int i = 0; i < count; i++) close(fds[i]);
  if (count < NEEDED)
    luaL_error(L, "needs %d more file descriptors, got %d: %s; raise the limit (ulimit -n)", NEEDED, count,
               strerror(why));
}

struct dr_runtime *dr_runtime_new(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_get(L);
  if (rt) return rt;
  make_large_buffer(L);
  rt = lua_newuserdatauv(L, sizeof *rt, 0);
  memset(rt, 0, sizeof *rt);
  rt->pid = getpid();
  const char *traced = getenv("DOCKRUN_TRACE");
  rt->traces = traced && !strcmp(traced, "fibers");
  dr_set_gc(L, RUNTIME, l_gc);  // first, because each step after it can run out of memory
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  lua_State *main = lua_tothread(L, -1);
  lua_pop(L, 1);
  check_descriptors(L);
  int rc = uv_loop_init(&rt->loop);
  if (rc) luaL_error(L, "cannot make an event loop: %s", uv_strerror(rc));
  rt->root = dr_root_new(rt);
  if (!rt->root || (rc = uv_async_init(&rt->loop, &rt->signal_async, on_signal_async))) {
    dr_root_free(rt->root);
    uv_loop_close(&rt->loop);
    luaL_error(L, "cannot make the runtime: %s", rc ? uv_strerror(rc) : "out of memory");
  }
  uv_unref((uv_handle_t *)&rt->signal_async);
  rt->signal_async.data = rt;
  rt->L = main;
  dr_count_memory(rt, L);
  dr_runtime_set(L);
  return rt;
}
