#include "http/stream.h"

#include <ctype.h>
#include <errno.h>
#include <lauxlib.h>

#include "data/json.h"
#include "data/lua_util.h"
#include "http/frames.h"
#include "http/http.h"

static const char STREAM[] = "dockrun.stream";

struct stream {
  struct dr_channel *channel;  // NULL once closed
  const struct dr_buffer *headers;
  enum dr_stream_kind kind;
  struct dr_frames frames;
  double deadline;   // of the read under way, on the clock of uv_hrtime; below 0: none
  const char *call;  // for the check
};

enum { EXCHANGE = 1, CHECK };  // user values

static struct stream *check_stream(lua_State *L) { return luaL_checkudata(L, 1, STREAM); }

// Pushes what is wrong with the document at the top and says true, or pushes nothing.
static bool stream_push_flaw(lua_State *L, const struct stream *s) {
  if (lua_getiuservalue(L, 1, CHECK) == LUA_TFUNCTION) {
    lua_pushstring(L, s->call);
    lua_pushvalue(L, -3);
    lua_call(L, 2, 1);
  }
  if (lua_isstring(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

// The document of the line at the top, before it. The stream is at index 1.
static int stream_decode_line(lua_State *L, const struct stream *s) {
  size_t len;
  struct dr_error e;
  const char *line = lua_tolstring(L, -1, &len);
  if (dr_json_decode(L, line, len) == 1 && lua_istable(L, -1)) {
    if (stream_push_flaw(L, s)) {
      dr_fail(&e, "protocol", EPROTO, "a document of %s is not as it should be: %s", s->call, lua_tostring(L, -1));
      return dr_return_error(L, &e);
    }
    lua_insert(L, -2);
    return 2;
  }
  dr_fail(&e, "protocol", EPROTO, "a line that is not a JSON object (%.*s)", len < 400 ? (int)len : 400, line);
  return dr_return_error(L, &e);
}

// Finds the next item in the buffer: its length in bytes, 0 if it is not whole yet, or -EPROTO.
static int64_t stream_find(struct stream *s, const char **item, size_t *n, struct dr_error *e) {
  const struct dr_buffer *in = &s->channel->in;
  size_t len = dr_buffer_len(in);
  if (!len) return 0;
  if (s->kind == DR_STREAM_LINES) return dr_line_next(dr_buffer_data(in), len, item, n, e);
  if (s->kind == DR_STREAM_FRAMES) return dr_frame_next(&s->frames, dr_buffer_data(in), len, item, n, e);
  *item = dr_buffer_data(in);
  *n = len;
  return (int64_t)len;
}

// Pushes the next item that the buffer holds. Returns the number of values, or 0.
static int stream_take(lua_State *L, struct stream *s) {
  struct dr_channel *c = s->channel;
  const char *item = NULL;
  size_t n = 0;
  struct dr_error e;
  int64_t used = stream_find(s, &item, &n, &e);
  if (used < 0) {
    c->failed = true;
    c->error = e;
    return 0;
  }
  if (n) lua_pushlstring(L, item, n);
  dr_buffer_drop(&c->in, (size_t)used);
  if (used)
    c->high = 0;
  else if (dr_channel_full(c))
    c->high = dr_buffer_len(&c->in) + DR_HIGH_WATER;  // one item may be larger
  if (!n) return 0;
  if (s->kind == DR_STREAM_LINES) return stream_decode_line(L, s);
  if (s->kind == DR_STREAM_BYTES) return 1;
  lua_pushstring(L, dr_frame_streams[s->kind == DR_STREAM_RAW ? 1 : s->frames.stream]);
  return 2;
}

static bool stream_is_blank(const struct dr_buffer *b) {
  for (size_t i = 0; i < dr_buffer_len(b); i++)
    if (!isspace((unsigned char)dr_buffer_data(b)[i])) return false;
  return true;
}

static int stream_at_end(lua_State *L, struct stream *s) {
  struct dr_channel *c = s->channel;
  if (c->failed) return dr_return_error(L, &c->error);
  if (s->kind == DR_STREAM_LINES && !stream_is_blank(&c->in)) {  // a last document without a line break
    lua_pushlstring(L, dr_buffer_data(&c->in), dr_buffer_len(&c->in));
    dr_buffer_drop(&c->in, dr_buffer_len(&c->in));
    return stream_decode_line(L, s);
  }
  if (s->kind == DR_STREAM_FRAMES && (dr_buffer_len(&c->in) || s->frames.left)) {
    struct dr_error e;
    dr_fail(&e, "protocol", EPROTO, "the stream ended inside of a frame");
    return dr_return_error(L, &e);
  }
  lua_pushnil(L);
  return 1;
}

static int stream_read_on(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  struct stream *s = check_stream(L);
  for (;;) {
    struct dr_channel *c = s->channel;
    if (!c) {  // closed while it waited
      lua_pushnil(L);
      return 1;
    }
    int results = stream_take(L, s);
    if (results) {
      if (s->channel && dr_buffer_len(&c->in) < DR_HIGH_WATER / 2) c->more(c);
      return results;
    }
    if (c->failed) return stream_at_end(L, s);
    size_t before = dr_buffer_len(&c->in);
    c->more(c);
    if (dr_buffer_len(&c->in) != before) continue;
    if (c->ended) return stream_at_end(L, s);
    if (status == LUA_YIELD && c->reader.outcome == DR_TIMED_OUT) {
      struct dr_error e;
      dr_fail(&e, "timeout", ETIMEDOUT, "nothing came through the stream in time");
      return dr_return_error(L, &e);
    }
    double left = s->deadline < 0 ? -1 : s->deadline - (double)uv_hrtime() / 1e9;
    c->reader.stop = NULL;
    c->reader.what = "bytes of a stream";
    return dr_wait(L, &c->reader, 1, s->deadline >= 0 && left < 0 ? 0 : left, stream_read_on, 0);
  }
}

// stream:read([timeout]) -> item… | nil at the end | nil, err. An item is: of bytes a string; of JSON documents the
// decoded document and its text; of log frames a string and "stdout", "stderr" or "error". A time-out leaves it usable.
static int l_read(lua_State *L) {
  struct stream *s = check_stream(L);
  double timeout = dr_opt_seconds(L, 2, -1);
  s->deadline = timeout < 0 ? -1 : (double)uv_hrtime() / 1e9 + timeout;
  lua_settop(L, 1);
  return stream_read_on(L, LUA_OK, 0);
}

static int stream_next_read(lua_State *L, int status, lua_KContext ctx) {
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
  lua_callk(L, 1, LUA_MULTRET, 0, stream_next_read);
  return stream_next_read(L, LUA_OK, 0);
}

static int stream_written(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct stream *s = check_stream(L);
  struct dr_channel *c = s->channel;
  struct dr_error e;
  if (c && c->failed) return dr_return_error(L, &c->error);
  if (!c || c->ended) {
    dr_fail(&e, "unreachable", EPIPE, "the stream is closed");
    return dr_return_error(L, &e);
  }
  if (dr_buffer_len(&c->out) > DR_HIGH_WATER) {
    c->writer.stop = NULL;
    c->writer.what = "room in a stream";
    return dr_wait(L, &c->writer, 1, -1, stream_written, 0);
  }
  lua_pushboolean(L, true);
  return 1;
}

// stream:write(bytes) -> true | nil, err. Waits while the peer is too far behind. For attach and exec.
static int l_write(lua_State *L) {
  struct stream *s = check_stream(L);
  size_t len;
  const char *data = luaL_checklstring(L, 2, &len);
  struct dr_channel *c = s->channel;
  if (c && !c->writable) return luaL_error(L, "this stream is for reading, or its end was written already");
  if (c && !c->ended) {
    if (dr_buffer_add(&c->out, data, len)) return luaL_error(L, "out of memory");
    c->flush(c);
  }
  lua_settop(L, 1);
  return stream_written(L, LUA_OK, 0);
}

// stream:shutdown(): nothing more will be written; the peer sees the end of its input
static int l_shutdown(lua_State *L) {
  struct stream *s = check_stream(L);
  if (!s->channel || !s->channel->writable) return 0;
  s->channel->writable = false;
  s->channel->half_close(s->channel);
  return 0;
}

// stream:at_end_of_frame() -> whether the bytes that were read last end a log frame. The engine keeps one entry of a
// log as one frame.
static int l_at_end_of_frame(lua_State *L) {
  lua_pushboolean(L, check_stream(L)->frames.left == 0);
  return 1;
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
      {"read", l_read},           {"write", l_write},   {"shutdown", l_shutdown},
      {"headers", l_headers},     {"close", l_close},   {"at_end_of_frame", l_at_end_of_frame},
      {"__call", l_next},         {"__close", l_close}, {"__gc", l_close},
      {"__tostring", l_tostring}, {NULL, NULL}};
  struct stream *s = lua_newuserdatauv(L, sizeof *s, CHECK);
  *s = (struct stream){.channel = channel, .headers = headers, .kind = kind, .deadline = -1};
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, EXCHANGE);
  luaL_newmetatable(L, STREAM);
  luaL_setfuncs(L, methods, 0);  // each time, see dr_set_gc
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  return 1;
}

void dr_stream_check(lua_State *L, const char *call) {
  struct stream *s = lua_touserdata(L, -2);
  s->call = call;
  lua_setiuservalue(L, -2, CHECK);
}
