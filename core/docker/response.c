// The end of a call: the answer of the engine becomes Lua values, a stream, or an error.
#include <errno.h>
#include <lauxlib.h>
#include <string.h>

#include "data/encoding.h"
#include "data/json.h"
#include "docker/engine.h"
#include "http/stream.h"

// Whether an option of the call is this boolean.
static bool response_option_is(lua_State *L, const char *name, bool wanted) {
  lua_getfield(L, AT_OPTIONS, name);
  bool is = lua_isboolean(L, -1) && lua_toboolean(L, -1) == wanted;
  lua_pop(L, 1);
  return is;
}

enum dr_answer dr_answer_of(lua_State *L, const struct dr_operation *row) {
  if (row->answer == DR_ANSWER_LINES && response_option_is(L, "stream", false)) return DR_ANSWER_JSON;
  if (row->answer != DR_ANSWER_HIJACK || lua_getfield(L, AT_OPTIONS, "body") != LUA_TTABLE) return row->answer;
  lua_getfield(L, -1, "Detach");
  bool detached = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return detached ? DR_ANSWER_NONE : DR_ANSWER_HIJACK;
}

// Whether the engine itself wrote the answer: its heads say so, and a refusal to attach has a type of the engine's own.
static bool response_is_engines(const struct dr_buffer *headers) {
  static const char own_type[] = "application/vnd.docker.";
  size_t len;
  if (dr_header(headers, "api-version", &len)) return true;
  const char *type = dr_header(headers, "content-type", &len);
  return len >= strlen(own_type) && !memcmp(type, own_type, strlen(own_type));
}

enum { SHOWN = 200 };  // bytes of what is not the engine's own words

// Pushes the target of a redirect as a part of a sentence, or "" for any other answer.
static void response_push_location(lua_State *L, const struct dr_buffer *headers) {
  size_t len;
  const char *location = dr_header(headers, "location", &len);
  lua_pushstring(L, location ? " (it points to " : "");
  lua_pushlstring(L, location, len < SHOWN ? len : SHOWN);
  lua_pushstring(L, location ? ")" : "");
  lua_concat(L, 3);
}

int dr_refused(lua_State *L, const struct dr_engine *e, const struct dr_operation *row, long status,
               const struct dr_buffer *headers, const struct dr_buffer *in) {
  size_t len = dr_buffer_len(in);
  const char *text = len ? dr_buffer_data(in) : "";
  bool json = len && dr_json_decode(L, text, len) == 1 && lua_istable(L, -1);
  bool own = !json && len && response_is_engines(headers);
  if (json && lua_getfield(L, -1, "message") == LUA_TSTRING && lua_rawlen(L, -1)) {
    text = lua_tolstring(L, -1, &len);
    own = true;
  }
  while (len && (text[len - 1] == '\n' || text[len - 1] == '\r')) len--;
  if (!own || !len) {
    lua_pushlstring(L, text, len < SHOWN ? len : SHOWN);
    response_push_location(L, headers);
    text = lua_pushfstring(L, "%s answered %d to %s %s%s%s%s", e->who, (int)status, row->method, row->path,
                           lua_tostring(L, -1),
                           !len   ? ""
                           : json ? ": "
                                  : ", and not in JSON: ",
                           lua_tostring(L, -2));
  }
  // "protocol": not from the engine, but from a proxy or server in front of it. This one was not understood. A redirect
  // is the engine's: its router takes such a path for another's.
  const char *kind = json || own || !len || status < 400 ? "engine" : "protocol";
  if (!own || !len) len = strlen(text);
  lua_pushnil(L);
  dr_push_error_text(L, kind, (int)status, text, len);
  lua_pushstring(L, row->name);
  lua_setfield(L, -2, "call");
  return 2;
}

// Whether the caller accepts the answer at the top; if not, the reason is at the top.
static bool response_is_accepted(lua_State *L, const struct dr_operation *row) {
  if (lua_getiuservalue(L, AT_ENGINE, DR_ENGINE_CHECK) == LUA_TFUNCTION) {
    lua_pushstring(L, row->name);
    lua_pushvalue(L, -3);
    lua_call(L, 2, 1);
  }
  if (lua_isstring(L, -1)) return false;
  lua_pop(L, 1);
  return true;
}

static int push_json_answer(lua_State *L, const struct dr_engine *e, const struct dr_operation *row,
                            const struct dr_buffer *in) {
  struct dr_error error;
  size_t len = dr_buffer_len(in);
  if (len && dr_json_decode(L, dr_buffer_data(in), len) == 1) {
    if (!lua_touserdata(L, -1) && lua_islightuserdata(L, -1)) dr_json_push_array(L);  // null: an empty list of Go
    if (!lua_istable(L, -1)) goto none;
    if (response_is_accepted(L, row)) return 1;
    dr_fail(&error, "protocol", EPROTO, "the answer to %s %s is not as it should be, from %s: %s", row->method,
            row->path, e->who, lua_tostring(L, -1));
    return dr_return_error(L, &error);
  }
none:
  lua_settop(L, AT_EXCHANGE);
  dr_fail(&error, "protocol", EPROTO, "the answer to %s %s is not JSON, from %s: %.*s", row->method, row->path, e->who,
          len < 200 ? (int)len : 200, len ? dr_buffer_data(in) : "");
  return dr_return_error(L, &error);
}

// HEAD …/archive answers by a header: base64 of {name, size, mode, mtime, linkTarget}.
static int push_path_stat(lua_State *L, const struct dr_engine *e, const struct dr_operation *row,
                          const struct dr_request *r) {
  size_t len;
  const char *text = dr_header(&r->headers, "x-docker-container-path-stat", &len);
  if (text && dr_push_unbase64(L, text, len)) {
    const char *json = lua_tolstring(L, -1, &len);
    if (dr_json_decode(L, json, len) == 1) return 1;
  }
  struct dr_error error;
  dr_fail(&error, "protocol", EPROTO, "no path stat in the answer to %s %s, from %s", row->method, row->path, e->who);
  return dr_return_error(L, &error);
}

static enum dr_stream_kind response_stream_kind(lua_State *L, const struct dr_engine *e, enum dr_answer answer,
                                                const struct dr_buffer *headers, bool body_tty) {
  static const char multiplexed[] = "multiplexed-stream", raw[] = "raw-stream";
  if (answer == DR_ANSWER_BYTES) return DR_STREAM_BYTES;
  if (answer == DR_ANSWER_LINES) return DR_STREAM_LINES;
  size_t len = 0;
  const char *type = dr_header(headers, "content-type", &len);
  if (len && memmem(type, len, multiplexed, strlen(multiplexed))) return DR_STREAM_FRAMES;
  // Before API 1.42 the engine calls both forms raw; then only the caller can know.
  if (e->api >= 42 && len && memmem(type, len, raw, strlen(raw))) return DR_STREAM_RAW;
  return body_tty || response_option_is(L, "tty", true) ? DR_STREAM_RAW : DR_STREAM_FRAMES;
}

// With TLS 1.3 an engine refuses our certificate after the handshake, and its word for that may get lost as it hangs
// up.
static bool response_hung_up(const struct dr_error *e) {
  return e->code == CURLE_RECV_ERROR || e->code == CURLE_SEND_ERROR || e->code == CURLE_GOT_NOTHING;
}

int dr_failed(lua_State *L, const struct dr_engine *e, struct dr_error *error) {
  if (!e->api && response_hung_up(error) && !strncmp(e->url, "https:", 6)) {
    struct dr_error lost = *error;
    dr_fail(error, lost.kind, lost.code, "%s (does it take our certificate?)", lost.message);
  }
  return dr_return_error(L, error);
}

int dr_answered(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_operation *row = (const struct dr_operation *)ctx;
  struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  struct dr_request *r = lua_touserdata(L, AT_EXCHANGE);
  enum dr_answer answer = dr_answer_of(L, row);
  lua_settop(L, AT_EXCHANGE);
  int results = 1;
  if (r->channel.failed) {
    results = dr_failed(L, e, &r->channel.error);
  } else if (!dr_http_succeeded(r->status) && !(answer == DR_ANSWER_STATE && r->status == 304)) {
    if (r->status == 400) e->api = 0;  // it may be another engine now, with another version: ask again next time
    results = dr_refused(L, e, row, r->status, &r->headers, &r->channel.in);
  } else if (answer >= DR_ANSWER_BYTES) {
    dr_stream_push(L, &r->channel, &r->headers, response_stream_kind(L, e, answer, &r->headers, false));
    lua_getiuservalue(L, AT_ENGINE, DR_ENGINE_CHECK);
    dr_stream_check(L, row->name);
    lua_pushinteger(L, r->status);
    return 2;
  } else if (answer == DR_ANSWER_JSON) {
    results = push_json_answer(L, e, row, &r->channel.in);
  } else if (answer == DR_ANSWER_TEXT) {
    size_t len = dr_buffer_len(&r->channel.in);
    lua_pushlstring(L, len ? dr_buffer_data(&r->channel.in) : "", len);
  } else if (answer == DR_ANSWER_HEADERS) {
    results = push_path_stat(L, e, row, r);
  } else {
    lua_pushboolean(L, true);
  }
  if (results == 1) lua_pushinteger(L, r->status);
  r->channel.close(&r->channel);
  return 2;
}

int dr_upgraded(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_operation *row = (const struct dr_operation *)ctx;
  struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  struct dr_upgrade *u = lua_touserdata(L, AT_EXCHANGE);
  if (u->channel.failed || (u->status != 101 && !dr_http_succeeded(u->status))) {
    int results = u->channel.failed ? dr_return_error(L, &u->channel.error)
                                    : dr_refused(L, e, row, u->status, &u->headers, &u->channel.in);
    u->channel.close(&u->channel);
    return results;
  }
  bool tty = false;
  if (lua_getfield(L, AT_OPTIONS, "body") == LUA_TTABLE) {
    lua_getfield(L, -1, "Tty");
    tty = lua_toboolean(L, -1);
  }
  lua_settop(L, AT_EXCHANGE);
  dr_stream_push(L, &u->channel, &u->headers, response_stream_kind(L, e, DR_ANSWER_HIJACK, &u->headers, tty));
  lua_pushinteger(L, u->status);
  return 2;
}
