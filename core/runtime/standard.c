// dockrun.core.standard: fibers write on the descriptors 1 and 2, read from 0, and ask the terminal.
#include "data/lua_util.h"
#include "runtime/output.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "data/safe.h"

// ---- writing -----------------------------------------------------------------------------------

static struct dr_output *output_of(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_get(L);
  if (!rt->output) {
    struct dr_output *o = dr_output_new();
    if (!o) luaL_error(L, "out of memory");
    o->owned = true;
    dr_output_attach(o, rt);
  }
  return rt->output;
}

static int check_output(lua_State *L) {
  lua_Integer fd = luaL_checkinteger(L, 1);
  luaL_argcheck(L, fd == STDOUT_FILENO || fd == STDERR_FILENO, 1, "expected 1 or 2");
  return (int)fd;
}

// If the script ends with its reader, the error of a failed write is the error that the signal is about to raise: a
// script that returns before the signal arrives then ends in the same way.
static int standard_push_result(lua_State *L, int rc) {
  struct dr_error e;
  lua_pushboolean(L, true);
  if (!rc) return 1;
  if (rc == -EPIPE && output_of(L)->ends > DR_ENDS_LATER) {
    lua_pushnil(L);
    return 1 + dr_interrupted(L, SIGPIPE);
  }
  dr_fail_errno(&e, -rc, "cannot write the results");
  e.kind = "output";  // a person has heard of it already
  return dr_return_error(L, &e);
}

// write(fd, bytes) -> true | nil, err. What the descriptor does not take now is written by the loop. Never waits.
static int l_write(lua_State *L) {
  size_t len;
  int fd = check_output(L);
  const char *data = luaL_checklstring(L, 2, &len);
  struct dr_output *o = output_of(L);
  fflush(fd == STDOUT_FILENO ? stdout : stderr);  // what print wrote comes first
  return standard_push_result(L, dr_output_write(o, dr_output_sink(o, fd), data, len));
}

static int standard_waited(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_sink *s = (const struct dr_sink *)ctx;
  if (dr_has_room(s)) return standard_push_result(L, -s->error);
  lua_pushboolean(L, false);
  return 1;
}

// wait(fd [, timeout]) -> true once little is left to be written; false: out of time | nil, err
static int l_wait(lua_State *L) {
  int fd = check_output(L);
  double timeout = dr_opt_seconds(L, 2, -1);
  struct dr_output *o = output_of(L);
  struct dr_sink *s = dr_output_sink(o, fd);
  if (dr_has_room(s)) return standard_waited(L, LUA_OK, (lua_KContext)s);
  struct dr_room *r = lua_newuserdatauv(L, sizeof *r, 0);
  *r = (struct dr_room){
      .wait = {.what = "room in the output", .start = dr_room_enter, .stop = dr_room_leave}, .output = o, .sink = s};
  return dr_wait(L, &r->wait, lua_gettop(L), timeout, standard_waited, (lua_KContext)s);
}

// end_with_reader("later" | "write" | "at once"): from now on the script ends, as by SIGPIPE, when the reader of what
// it writes is gone; see enum dr_ends.
static int l_end_with_reader(lua_State *L) {
  static const char *const ways[] = {"later", "write", "at once", NULL};
  dr_output_end_with_reader(output_of(L), DR_ENDS_LATER + luaL_checkoption(L, 1, NULL, ways));
  return 0;
}

// ---- reading -----------------------------------------------------------------------------------

struct dr_input {
  uv_poll_t poll;  // of `ready`; active while a fiber waits
  int fd, ready;   // as of a dr_sink
  struct dr_wait *waiting;
};

struct wait_input {
  struct dr_wait wait;
  struct dr_input *input;
};

static void on_input(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  struct dr_input *in = poll->data;
  uv_poll_stop(poll);
  if (in->waiting) dr_wake(in->waiting);
  in->waiting = NULL;
}

static void input_enter(struct dr_wait *w) {
  struct dr_input *in = ((struct wait_input *)w)->input;
  in->waiting = w;
  uv_poll_start(&in->poll, UV_READABLE, on_input);
}

static void input_leave(struct dr_wait *w) {
  struct dr_input *in = ((struct wait_input *)w)->input;
  in->waiting = NULL;
  uv_poll_stop(&in->poll);
}

static void end_input(struct dr_runtime *rt) {
  struct dr_input *in = rt->input;
  rt->input = NULL;
  if (in->fd != STDIN_FILENO) close(in->fd);
  if (in->ready >= 0) close(in->ready);
  free(in);
}

static struct dr_input *input_of(lua_State *L) {
  struct dr_runtime *rt = dr_runtime_get(L);
  if (rt->input) return rt->input;
  struct dr_input *in = calloc(1, sizeof *in);
  if (!in) luaL_error(L, "out of memory");
  int own = dr_reopen(STDIN_FILENO, O_RDONLY);
  in->fd = own >= 0 ? own : STDIN_FILENO;
  in->ready = dr_readiness(in->fd, EPOLLIN);
  in->poll.data = in;
  int rc = in->ready < 0 ? 0 : uv_poll_init(&rt->loop, &in->poll, in->ready);
  rt->input = in;
  rt->end_input = end_input;
  if (!rc) return in;
  end_input(rt);
  luaL_error(L, "cannot wait for input: %s", uv_strerror(rc));
  return NULL;
}

static int read_input(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  struct dr_input *in = (struct dr_input *)ctx;
  char data[65536];
  for (;;) {
    ssize_t n = -1;
    errno = EAGAIN;
    if (in->ready < 0 || poll(&(struct pollfd){.fd = in->fd, .events = POLLIN}, 1, 0) > 0)
      n = read(in->fd, data, sizeof data);
    if (n > 0) {
      lua_pushlstring(L, data, (size_t)n);
      return 1;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN && in->ready >= 0) {
      struct wait_input *w = lua_newuserdatauv(L, sizeof *w, 0);
      *w = (struct wait_input){.wait = {.what = "the input", .start = input_enter, .stop = input_leave}, .input = in};
      return dr_wait(L, &w->wait, lua_gettop(L), -1, read_input, ctx);
    }
    lua_pushnil(L);
    if (!n || errno == EIO) return 1;  // EIO: the terminal is gone
    struct dr_error e;
    dr_fail_errno(&e, errno, "cannot read the input");
    return dr_return_error(L, &e);
  }
}

// read() -> bytes | nil at the end | nil, err. Waits for bytes. Before the first call, it takes nothing from the input.
static int l_read(lua_State *L) {
  struct dr_input *in = input_of(L);
  if (in->waiting) return luaL_error(L, "another fiber reads the input already");
  return read_input(L, LUA_OK, (lua_KContext)in);
}

// ---- the terminal ------------------------------------------------------------------------------

static const char RAW[] = "dockrun.raw";

struct raw {
  struct termios before;
  bool changed;
};

// size(fd) -> columns, rows of the terminal | nil
static int l_size(lua_State *L) {
  struct winsize size;
  if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) || !size.ws_col) return 0;
  lua_pushinteger(L, size.ws_col);
  lua_pushinteger(L, size.ws_row);
  return 2;
}

static int l_restore(lua_State *L) {
  struct raw *r = luaL_checkudata(L, 1, RAW);
  struct dr_output *o = dr_runtime_get(L)->output;
  if (r->changed && o) dr_output_drain(o);  // what was written for the raw terminal
  if (r->changed) tcsetattr(STDIN_FILENO, TCSADRAIN, &r->before);
  r->changed = false;
  return 0;
}

// raw() -> what ends it when it is closed | nil, err. The terminal gives each byte as it is typed, and shows each byte
// as it is written.
static int l_raw(lua_State *L) {
  struct raw *r = lua_newuserdatauv(L, sizeof *r, 0);
  r->changed = false;
  luaL_setmetatable(L, RAW);
  if (!tcgetattr(STDIN_FILENO, &r->before)) {
    struct termios raw = r->before;
    cfmakeraw(&raw);
    r->changed = !tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    if (r->changed) return 1;
  }
  struct dr_error e;
  dr_fail_errno(&e, errno, "cannot set the terminal");
  return dr_return_error(L, &e);
}

// safe(text [, "line" | "text" | "strip"]) -> text that a terminal does not act on; see safe.h
static int l_safe(lua_State *L) {
  static const char *const ways[] = {"line", "text", "strip", NULL};
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  dr_push_safe(L, text, len, luaL_checkoption(L, 2, "line", ways));
  return 1;
}

int luaopen_dockrun_core_standard(lua_State *L) {
  static const luaL_Reg functions[] = {{"write", l_write}, {"wait", l_wait}, {"end_with_reader", l_end_with_reader},
                                       {"read", l_read},   {"size", l_size}, {"raw", l_raw},
                                       {"safe", l_safe},   {NULL, NULL}};
  static const luaL_Reg ends[] = {{"close", l_restore}, {"__close", l_restore}, {"__gc", l_restore}, {NULL, NULL}};
  luaL_newmetatable(L, RAW);
  luaL_setfuncs(L, ends, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, functions);
  return 1;
}
