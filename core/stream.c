#include "stream.h"

#include <lauxlib.h>

#include "frames.h"
#include "http.h"
#include "json.h"

static const char STREAM[] = "dockrun.stream";

struct stream {
  struct dr_channel *channel;  // NULL once closed
  const struct dr_buffer *headers;
  enum dr_stream_kind kind;
  struct dr_frames frames;
  double deadline;  // of the read under way, on the clock of uv_hrtime; below 0: none
};

static struct stream *check_stream(lua_State *L) { return luaL_checkudata(L, 1, STREAM); }

static int push_line(lua_State *L, const char *line, size_t len) {
  lua_pushlstring(L, line, len);
  int n = dr_json_decode(L, line, len);
  if (n == 1) {
    lua_insert(L, -2);
    return 2;
  }
  struct dr_error e;
  dr_fail(&e, "protocol", EPROTO, "a line that is not JSON (%.*s)", len < 400 ? (int)len : 400, line);
  return dr_return_error(L, &e);
}

// Pushes the next item that the buffer holds. Returns how many values, 0 where it holds none.
static int take(lua_State *L, struct stream *s) {
  struct dr_buffer *in = &s->channel->in;
  const char *data = dr_buffer_data(in), *item = NULL;
  size_t len = dr_buffer_len(in), n = 0;
  struct dr_error e;
  int64_t used = 0;
  int results = 0;
  if (!len) return 0;
  switch (s->kind) {
    case DR_STREAM_BYTES:
      lua_pushlstring(L, data, len);
      results = 1;
      used = (int64_t)len;
      break;
    case DR_STREAM_RAW:
      lua_pushlstring(L, data, len);
      lua_pushliteral(L, "stdout");
      results = 2;
      used = (int64_t)len;
      break;
    case DR_STREAM_LINES:
      used = dr_line_next(data, len, &item, &n, &e);
      if (used > 0) results = push_line(L, item, n);
      break;
    case DR_STREAM_FRAMES:
      used = dr_frame_next(&s->frames, data, len, &item, &n, &e);
      if (used > 0 && n > 0) {
        static const char *const names[] = {"stdin", "stdout", "stderr", "error"};
        lua_pushlstring(L, item, n);
        lua_pushstring(L, names[s->frames.stream]);
        results = 2;
      }
      break;
  }
  if (used < 0) {
    s->channel->failed = true;
    s->channel->error = e;
    return 0;
  }
  dr_buffer_drop(in, (size_t)used);
  return results;
}

static int at_end(lua_State *L, struct stream *s) {
  struct dr_channel *c = s->channel;
  size_t len = dr_buffer_len(&c->in);
  if (c->failed) return dr_return_error(L, &c->error);
  if (s->kind == DR_STREAM_LINES && len) {  // a last document without a line break
    int n = push_line(L, dr_buffer_data(&c->in), len);
    dr_buffer_drop(&c->in, len);
    return n;
  }
  if (s->kind == DR_STREAM_FRAMES && (len || s->frames.left)) {
    struct dr_error e;
    dr_fail(&e, "protocol", EPROTO, "the stream ended inside of a frame");
    return dr_return_error(L, &e);
  }
  lua_pushnil(L);
  return 1;
}

static int read_on(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct stream *s = check_stream(L);
  for (;;) {
    struct dr_channel *c = s->channel;
    if (!c) {  // closed while it waited
      lua_pushnil(L);
      return 1;
    }
    int results = take(L, s);
    if (dr_buffer_len(&c->in) < DR_HIGH_WATER / 2) c->more(c);
    if (results) return results;
    if (c->failed) return at_end(L, s);
    size_t before = dr_buffer_len(&c->in);
    c->more(c);
    if (dr_buffer_len(&c->in) != before) continue;
    if (c->ended) return at_end(L, s);
    double left = -1;
    if (s->deadline >= 0) {
      left = s->deadline - (double)uv_hrtime() / 1e9;
      if (left < 0) {
        struct dr_error e;
        dr_fail(&e, "timeout", ETIMEDOUT, "nothing came through the stream in time");
        return dr_return_error(L, &e);
      }
    }
    c->reader.stop = NULL;
    return dr_wait(L, &c->reader, 1, left, read_on, 0);
  }
}

// stream:read([timeout]) -> item… | nil at the end | nil, err. An item is: of bytes a string; of JSON documents the
// decoded document and its text; of log frames a string and "stdout", "stderr" or "error". A time-out leaves it usable.
static int l_read(lua_State *L) {
  struct stream *s = check_stream(L);
  double timeout = dr_opt_seconds(L, 2, -1);
  s->deadline = timeout < 0 ? -1 : (double)uv_hrtime() / 1e9 + timeout;
  lua_settop(L, 1);
  return read_on(L, LUA_OK, 0);
}

static int next_read(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  if (lua_isnil(L, 2) && lua_gettop(L) >= 3 && !lua_isnil(L, 3)) {
    lua_settop(L, 3);
    return lua_error(L);
  }
  return lua_gettop(L) - 1;
}

// for item in stream do … end: like read(), but raises an error instead of ending quietly.
static int l_next(lua_State *L) {
  check_stream(L);
  lua_settop(L, 1);
  lua_pushcfunction(L, l_read);
  lua_pushvalue(L, 1);
  lua_callk(L, 1, LUA_MULTRET, 0, next_read);
  return next_read(L, LUA_OK, 0);
}

static int written(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct stream *s = check_stream(L);
  struct dr_channel *c = s->channel;
  if (c && c->failed) return dr_return_error(L, &c->error);
  if (c && !c->ended && dr_buffer_len(&c->out) > DR_HIGH_WATER) return dr_wait(L, &c->writer, 1, -1, written, 0);
  struct dr_error e;
  dr_fail(&e, "unreachable", EPIPE, "the stream is closed");
  if (!c || c->ended) return dr_return_error(L, &e);
  lua_pushboolean(L, true);
  return 1;
}

// stream:write(bytes) -> true | nil, err. Waits while the peer is too far behind.
static int l_write(lua_State *L) {
  struct stream *s = check_stream(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  if (s->channel && !s->channel->ended) {
    if (dr_buffer_add(&s->channel->out, data, len)) return luaL_error(L, "out of memory");
    s->channel->flush(s->channel);
  }
  lua_settop(L, 1);
  return written(L, LUA_OK, 0);
}

// stream:shutdown(): nothing more will be written; the peer sees the end of its input
static int l_shutdown(lua_State *L) {
  struct stream *s = check_stream(L);
  if (s->channel) s->channel->half_close(s->channel);
  return 0;
}

// stream:headers() -> table of the answer's headers, lower-case names
static int l_headers(lua_State *L) {
  struct stream *s = check_stream(L);
  if (!s->channel) return luaL_error(L, "the stream is closed");
  dr_push_headers(L, s->headers);
  return 1;
}

static int l_close(lua_State *L) {
  struct stream *s = check_stream(L);
  if (!s->channel) return 0;
  struct dr_channel *c = s->channel;
  s->channel = NULL;
  c->close(c);
  dr_wake(&c->reader);
  dr_wake(&c->writer);
  return 0;
}

static int l_tostring(lua_State *L) {
  static const char *const kinds[] = {"bytes", "JSON documents", "log frames", "a terminal's output"};
  struct stream *s = check_stream(L);
  lua_pushfstring(L, "stream of %s (%s)", kinds[s->kind],
                  !s->channel         ? "closed"
                  : s->channel->ended ? "ended"
                                      : "open");
  return 1;
}

int dr_stream_push(lua_State *L, struct dr_channel *channel, const struct dr_buffer *headers,
                   enum dr_stream_kind kind) {
  static const luaL_Reg methods[] = {
      {"read", l_read},           {"write", l_write}, {"shutdown", l_shutdown}, {"headers", l_headers},
      {"close", l_close},         {"__call", l_next}, {"__close", l_close},     {"__gc", l_close},
      {"__tostring", l_tostring}, {NULL, NULL}};
  struct stream *s = lua_newuserdatauv(L, sizeof *s, 1);
  *s = (struct stream){.channel = channel, .headers = headers, .kind = kind, .deadline = -1};
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, 1);
  if (luaL_newmetatable(L, STREAM)) {
    luaL_setfuncs(L, methods, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
  }
  lua_setmetatable(L, -2);
  return 1;
}
