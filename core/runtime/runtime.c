// The Lua state's runtime: the loop, the script's run, signals, and the modules of dockrun.core.
#include "runtime/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/error.h"
#include "docker/dialect.h"
#include "host/standard.h"
#include "runtime/budget.h"
#include "runtime/modules.h"

static const char RUNTIME[] = "dockrun.runtime";
static const char KEY;                  // registry key of the runtime
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
  return dr_wake_runs(rt, !alive) || alive;
}

// ---- signals -----------------------------------------------------------------------------------

int dr_interrupted(lua_State *L, int signal) {
  static const struct {
    int signal;
    const char *name;
  } names[] = {{SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}, {SIGPIPE, "SIGPIPE"}};
  const char *name = "SIGINT";
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].signal == signal) name = names[i].name;
  const char *message = lua_pushfstring(L, "interrupted by %s", name);
  dr_push_error_text(L, "cancelled", 0, message, strlen(message));
  lua_pushstring(L, name);
  lua_setfield(L, -2, "signal");
  lua_remove(L, -2);
  return 1;
}

static _Thread_local int undisturbed;

int dr_protected(lua_State *L, int nargs, int nresults) {
  undisturbed++;
  int status = lua_pcall(L, nargs, nresults, 0);
  undisturbed--;
  if (status == LUA_ERRMEM) lua_error(L);
  return status;
}

// All that runs hears of a signal: the script, and what a function of C has it run meanwhile.
static void interrupt_runs(struct dr_runtime *rt, int signal, const struct dr_fiber *but) {
  for (struct dr_run *run = rt->run; run; run = run->outer) {
    if (!run->main || run->main == but) continue;
    if (dr_fiber_ended(run->main))
      run->given_up = true;  // what is left does not end by itself: stop waiting for it
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

// A fiber that runs on and on keeps the main fiber from hearing of the signal: it is interrupted in its place.
static void on_stuck_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct dr_runtime *rt = dr_runtime_of(L);
  dr_restore_hook(L);
  if (rt->rounds != rt->signal_round) return;  // it came back to the loop since
  dr_interrupted(L, rt->stuck_signal);
  lua_error(L);
}

static bool is_main(const struct dr_runtime *rt, const struct dr_fiber *f) {
  const struct dr_run *run = rt->run;
  while (run && run->main != f) run = run->outer;
  return f && run;
}

// Runs at the next instruction of Lua: the signal came while Lua ran, and not while the loop waited.
static void on_signal_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (undisturbed) return;  // and comes again right after
  struct dr_runtime *rt = dr_runtime_of(L);
  int signal = rt->signal;
  dr_restore_hook(L);
  rt->signal = 0;
  if (!signal) return;
  interrupt_runs(rt, signal, rt->current);
  if (is_main(rt, rt->current)) {
    dr_interrupted(L, signal);
    lua_error(L);
  }
  rt->stuck_signal = signal;
  rt->signal_round = rt->rounds;
  rt->stuck_steps = 0;
  lua_sethook(L, on_stuck_hook, LUA_MASKCOUNT, STUCK);
}

void dr_hear_signal(lua_State *L, lua_Integer steps) {
  struct dr_runtime *rt = dr_runtime_of(L);
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

// Whether an earlier signal has waited too long: the process is inside of one call of C, which may take for ever, and a
// second signal then does what it does without us.
static bool is_deaf(struct dr_runtime *rt) {
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
  // A terminal that goes sends more than one, and a service manager sends one after SIGTERM: only the first signal
  // counts.
  bool repeats = rt && signal == SIGHUP && (rt->ignores_hangup || rt->signal);
  if (rt && !repeats && is_deaf(rt)) {
    restore_signals(rt);
    raise(signal);
  } else if (rt && !repeats) {
    rt->ignores_hangup = rt->ignores_hangup || signal == SIGHUP;
    dr_signal(rt, signal);
  }
  errno = saved;
}

// What is to come back as an error of the write that met it, or means nothing to us, and must not end a process that
// has containers to stop. A handler and not SIG_IGN, which the programs that we start would inherit.
static void on_other_signal(int signal) { (void)signal; }

static const struct {
  int signal;
  void (*handler)(int);
  bool may_be_ignored;  // as nohup does: one that was ignored at the start stays so
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

// Takes the finalizers of every module's types away: they would end what the parent goes on with, such as a lock's
// socket, a database or what its loop waits for.
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
  const struct dr_run *run = rt->run;  // a callback of the loop, whose handle may be older than the runs inside
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
static struct dr_fiber *fiber_of(const struct dr_run *run, struct dr_fiber *f) {
  while (f && dr_fiber_run(f) != run->id) f = dr_fiber_next(f);
  return f;
}

static void cancel_rest(struct dr_runtime *rt, const struct dr_run *run, lua_State *L) {
  for (struct dr_fiber *f = fiber_of(run, rt->fibers), *next; f; f = next) {
    next = fiber_of(run, dr_fiber_next(f));
    dr_end(L, f);
  }
  while (fiber_of(run, rt->fibers) && !run->given_up && dr_step(rt, L)) {}
}

int dr_run_main(lua_State *L, struct dr_run *run, int nargs) {
  struct dr_runtime *rt = dr_runtime_of(L);
  struct dr_fiber *f = run->main = dr_spawn_main(L, nargs, run->id);
  int handle = lua_gettop(L);
  while (!dr_fiber_ended(f)) {
    if (dr_step(rt, L)) continue;
    static const char stuck[] = "deadlock: the script waits for something that nothing can bring about";
    dr_push_error_text(L, "deadlock", 0, stuck, strlen(stuck));
    dr_cancel(L, f, -1);
    lua_pop(L, 1);
  }
  cancel_rest(rt, run, L);
  dr_settle_loop(rt);
  lua_settop(L, handle);  // a function of C that ran something meanwhile may have left values there
  bool ok = dr_fiber_results(L, f, handle);
  lua_remove(L, handle);
  return ok ? LUA_OK : LUA_ERRRUN;
}

double dr_opt_seconds(lua_State *L, int idx, double fallback) {
  if (lua_isnoneornil(L, idx)) return fallback;
  double seconds = luaL_checknumber(L, idx);
  luaL_argcheck(L, seconds >= 0, idx, "a time-out is a number of seconds of at least 0");
  return seconds;
}

// ---- where the Lua files are -------------------------------------------------------------------

static bool holds_policy(const char *dir) {
  char probe[PATH_MAX];
  return snprintf(probe, sizeof probe, "%s/dockrun/init.lua", dir) < (int)sizeof probe && access(probe, R_OK) == 0;
}

// The directory of this executable or library, or "" where it cannot be told.
static void own_directory(char *dir, size_t size) {
  Dl_info info;
  char path[PATH_MAX] = "";
  *dir = '\0';
  if (!dladdr(&KEY, &info) || !strchr(info.dli_fname, '/') || !realpath(info.dli_fname, path)) {
    if (!realpath("/proc/self/exe", path)) return;
  }
  char *slash = strrchr(path, '/');
  if (slash) *slash = '\0';
  snprintf(dir, size, "%s", path);
}

// Appends a directory to the search path at the top.
static void add_directory(lua_State *L, const char *dir) {
  lua_pushfstring(L, "%s%s/?.lua;%s/?/init.lua;", lua_tostring(L, -1), dir, dir);
  lua_replace(L, -2);
}

// Puts the Lua policy before the default package.path: DOCKRUN_LUA_PATH (directories, separated by ':'), and the first
// of these that has it: the build tree's, the installed one beside the executable or the library, the configured one.
static void set_path(lua_State *L) {
  static const char *const beside[] = {"/../../lua", "/../share/dockrun/lua", "/../../share/dockrun/lua"};
  const char *configured = DOCKRUN_SHARE, *listed = getenv("DOCKRUN_LUA_PATH");
  char own[PATH_MAX];
  own_directory(own, sizeof own);
  int top = lua_gettop(L);
  lua_pushliteral(L, "");
  for (size_t len; listed && *listed; listed += len + (listed[len] == ':')) {
    len = strcspn(listed, ":");
    if (!len) continue;
    const char *dir = lua_pushlstring(L, listed, len);
    lua_insert(L, -2);
    add_directory(L, dir);
  }
  for (size_t i = 0; *own && i < sizeof beside / sizeof *beside; i++) {
    const char *dir = lua_pushfstring(L, "%s%s", own, beside[i]);
    lua_insert(L, -2);
    if (!holds_policy(dir)) continue;
    add_directory(L, dir);
    configured = NULL;
    break;
  }
  if (configured && holds_policy(configured)) add_directory(L, configured);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "path");
  lua_pushfstring(L, "%s%s", lua_tostring(L, -3), lua_tostring(L, -1));
  lua_setfield(L, -3, "path");
  lua_settop(L, top);
}

// ---- birth and end -----------------------------------------------------------------------------

static void close_handle(uv_handle_t *handle, void *arg) {
  (void)arg;
  if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static int l_gc(lua_State *L) {
  struct dr_runtime *rt = luaL_checkudata(L, 1, RUNTIME);
  dr_uncount_memory(rt, L);
  if (!rt->L || rt->in_uv) return 0;  // in a callback of the loop: the process is about to exit, the loop cannot end
  rt->L = NULL;
  restore_signals(rt);
  dr_give_up_fibers(rt);
  dr_root_free(rt->root);
  uv_walk(&rt->loop, close_handle, NULL);
  uv_run(&rt->loop, UV_RUN_DEFAULT);
  uv_loop_close(&rt->loop);
  dr_standard_free(rt);
  return 0;
}

// os.exit([code [, close]]) as in Lua, but that luv's handles are let go of first: luv does not survive a state that is
// closed while one of them is closing. In a callback of the loop that cannot be done, and the state is not closed.
static int l_exit(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_of(L);
  lua_settop(L, 2);
  if (lua_toboolean(L, 2)) {
    bool closes = !rt->in_uv && !dr_is_copy(rt);
    if (closes) dr_settle_loop(rt);
    lua_pushboolean(L, closes);
    lua_replace(L, 2);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 2, 0);
  return 0;
}

static void wrap_exit(lua_State *L) {
  lua_getglobal(L, "os");
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "exit");
    lua_pushcclosure(L, l_exit, 1);
    lua_setfield(L, -2, "exit");
  }
  lua_pop(L, 1);
}

static void preload(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const luaL_Reg *m = dr_modules; m->name; m++) {
    lua_pushcfunction(L, m->func);
    lua_setfield(L, -2, m->name);
  }
  lua_pop(L, 1);
  dr_preload_luv(L);
}

void dr_set_gc(lua_State *L, const char *type, lua_CFunction gc) {
  luaL_newmetatable(L, type);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
}

// Lua makes the metatable of large buffers when it first needs one. Where memory ran out in the middle of that it would
// stay half made, and no buffer grow again.
static void make_large_buffer(lua_State *L) {
  luaL_Buffer b;
  luaL_buffinitsize(L, &b, LUAL_BUFFERSIZE + 1);
  luaL_pushresultsize(&b, 0);
  lua_pop(L, 1);
}

// Raises unless so many file descriptors can be had: libuv aborts the process if it has none for its signals.
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

struct dr_runtime *dr_runtime_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
  struct dr_runtime *rt = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (rt) return rt;
  make_large_buffer(L);
  rt = lua_newuserdatauv(L, sizeof *rt, 0);
  memset(rt, 0, sizeof *rt);
  rt->pid = getpid();
  dr_set_gc(L, RUNTIME, l_gc);  // before there is anything that it would have to end: all of this can run out of memory
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
  lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
  return rt;
}

// ---- the border --------------------------------------------------------------------------------

// now() -> seconds on a clock that never steps back
static int l_now(lua_State *L) {
  lua_pushnumber(L, (lua_Number)uv_hrtime() / 1e9);
  return 1;
}

// clock() -> seconds since 1970, nanoseconds of the second
static int l_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  lua_pushinteger(L, now.tv_sec);
  lua_pushinteger(L, now.tv_nsec);
  return 2;
}

// ignore_hangup(): from here on, SIGHUP changes nothing
static int l_ignore_hangup(lua_State *L) {
  dr_runtime_of(L)->ignores_hangup = true;
  return 0;
}

// error(kind, message [, fields]) -> an error value of the core's shape
static int l_error(lua_State *L) {
  size_t len;
  const char *kind = luaL_checkstring(L, 1), *message = luaL_checklstring(L, 2, &len);
  lua_settop(L, 3);
  dr_push_error_text(L, kind, 0, message, len);
  if (lua_istable(L, 3)) {
    for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
      lua_pushvalue(L, -2);
      lua_pushvalue(L, -2);
      lua_rawset(L, 4);
    }
  }
  return 1;
}

int luaopen_dockrun_core_runtime(lua_State *L) {
  static const luaL_Reg module[] = {
      {"now", l_now}, {"clock", l_clock}, {"error", l_error}, {"ignore_hangup", l_ignore_hangup}, {NULL, NULL}};
  dr_runtime_of(L);
  luaopen_dockrun_core_fibers(L);
  luaL_setfuncs(L, module, 0);
  lua_pushliteral(L, DOCKRUN_VERSION);
  lua_setfield(L, -2, "version");
  return 1;
}

// The one entry of the library: makes the runtime, and every dockrun.core.* known to require.
__attribute__((visibility("default"))) int luaopen_dockrun_core(lua_State *L) {
  struct dr_dialect wrong = {.error = luaL_error};
  // The Lua that calls this, and the one that would be called from here: they may be two.
  if (dr_is_wrong_lua(__builtin_return_address(0), &wrong) || dr_has_wrong_lua(&wrong))
    return wrong.error ? wrong.error(L, "%s", wrong.why) : 0;
  dr_expose_lua();
  // Else the next file that is opened, such as one of the loop's own, would be taken for a standard stream.
  int closed = dr_closed_standard();
  if (closed >= 0) return luaL_error(L, "file descriptor %d is closed; open /dev/null for it first", closed);
  dr_runtime_of(L);
  preload(L);
  set_path(L);
  wrap_exit(L);
  luaL_requiref(L, "dockrun.core.runtime", luaopen_dockrun_core_runtime, 0);
  return 1;
}
