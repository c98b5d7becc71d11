// dockrun.core.process: starts programs of this host, and hears of their end without SIGCHLD, which belongs to the host
// program: its handler is left in place, and it may ignore or block the signal. uv_spawn needs a handler of its own.
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/error.h"

static const char PROCESS[] = "dockrun.process";

struct process {
  pid_t pid;
  int fd;      // readable once it has ended; -1: the kernel is before 5.3, or it ended at once
  bool ended;  // then `pid` may be another process's
  int code;    // as of a shell; -1: unknown, because another part of this process collected it
};

static struct process *check_process(lua_State *L) { return luaL_checkudata(L, 1, PROCESS); }

// The words of the command, which stay on the stack.
static char **check_words(lua_State *L, int idx) {
  luaL_checktype(L, idx, LUA_TTABLE);
  size_t n = lua_rawlen(L, idx);
  luaL_argcheck(L, n > 0 && n < 10000, idx, "expected a program and its arguments");
  luaL_checkstack(L, (int)n + 1, "too many arguments");
  char **words = lua_newuserdatauv(L, (n + 1) * sizeof *words, 0);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, idx, (lua_Integer)i + 1);
    words[i] = (char *)luaL_checkstring(L, -1);
  }
  words[n] = NULL;
  return words;
}

// A descriptor becomes the program's `number`; without one it gets /dev/null.
static int process_give(posix_spawn_file_actions_t *actions, int number, int fd) {
  if (fd >= 0) return posix_spawn_file_actions_adddup2(actions, fd, number);
  return posix_spawn_file_actions_addopen(actions, number, "/dev/null", O_RDWR, 0);
}

// Blocked and ignored signals are inherited: the program begins as it would from a shell.
static int process_spawn(pid_t *pid, char **words, const int fds[3], bool session) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int rc = posix_spawn_file_actions_init(&actions);
  if (rc) return rc;
  for (int i = 0; !rc && i < 3; i++) rc = process_give(&actions, i, fds[i]);
  if (!rc) rc = posix_spawnattr_init(&attributes);
  if (!rc) {
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | (session ? POSIX_SPAWN_SETSID : 0);
    posix_spawnattr_setflags(&attributes, (short)flags);
    rc = posix_spawnp(pid, words[0], &actions, &attributes, words, environ);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_destroy(&actions);
  return rc;
}

// start(words, stdin, stdout, stderr, session) -> process | nil, err. Each of the three is a descriptor above 2, which
// stays the caller's, or nil for /dev/null. session: in a session of its own.
static int l_start(lua_State *L) {
  int fds[3];
  for (int i = 0; i < 3; i++) fds[i] = (int)luaL_optinteger(L, i + 2, -1);
  bool session = lua_toboolean(L, 5);
  struct process *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (struct process){.fd = -1, .ended = true, .code = -1};
  luaL_setmetatable(L, PROCESS);
  int self = lua_gettop(L);
  char **words = check_words(L, 1);
  int rc = process_spawn(&p->pid, words, fds, session);
  if (rc) {
    struct dr_error e;
    dr_fail_errno(&e, rc, "cannot start '%s'", words[0]);
    return dr_return_error(L, &e);
  }
  p->ended = false;
  p->fd = (int)syscall(SYS_pidfd_open, p->pid, 0);
  lua_settop(L, self);
  return 1;
}

// process:fd() -> a descriptor that is readable once it has ended, as long as it is not closed | nil: ask collect()
static int l_fd(lua_State *L) {
  const struct process *p = check_process(L);
  if (p->fd < 0) return 0;
  lua_pushinteger(L, p->fd);
  return 1;
}

static int process_wait(const struct process *p, siginfo_t *info) {
  int rc = p->fd < 0 ? -1 : waitid(P_PIDFD, (id_t)p->fd, info, WEXITED | WNOHANG);
  bool unknown = p->fd < 0 || (rc && errno == EINVAL);  // Linux 5.3 has the descriptor, and not this wait
  return unknown ? waitid(P_PID, (id_t)p->pid, info, WEXITED | WNOHANG) : rc;
}

// process:collect() -> whether it has ended, its exit code (128 and the signal's number after a signal), which is nil
// if another part of this process collected it, or if SIGCHLD is ignored. Never waits.
static int l_collect(lua_State *L) {
  struct process *p = check_process(L);
  siginfo_t info = {0};
  if (!p->ended && process_wait(p, &info)) {
    p->ended = errno == ECHILD;
  } else if (info.si_pid) {
    p->ended = true;
    p->code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
  }
  lua_pushboolean(L, p->ended);
  if (p->code < 0) return 1;
  lua_pushinteger(L, p->code);
  return 2;
}

// process:kill(): by SIGKILL, if it has not ended
static int l_kill(lua_State *L) {
  const struct process *p = check_process(L);
  if (p->ended) return 0;
  if (p->fd < 0 || syscall(SYS_pidfd_send_signal, p->fd, SIGKILL, NULL, 0)) kill(p->pid, SIGKILL);
  return 0;
}

// process:close(): gives the descriptor back; the program runs on. May be called twice.
static int l_close(lua_State *L) {
  struct process *p = check_process(L);
  if (p->fd >= 0) close(p->fd);
  p->fd = -1;
  return 0;
}

int luaopen_dockrun_core_process(lua_State *L) {
  static const luaL_Reg methods[] = {{"fd", l_fd},         {"collect", l_collect}, {"kill", l_kill}, {"close", l_close},
                                     {"__close", l_close}, {"__gc", l_close},      {NULL, NULL}};
  static const luaL_Reg module[] = {{"start", l_start}, {NULL, NULL}};
  luaL_newmetatable(L, PROCESS);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
