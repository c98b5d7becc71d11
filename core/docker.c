// dockrun.core.docker: the Engine API. One row an endpoint (endpoints.c), one dispatcher (here).
//
//   local engine = docker.connect{ endpoint = "unix:///var/run/docker.sock" }
//   engine:container_inspect(id)                                    path parameters first, in the path's order
//   engine:container_stop(id, { t = 5 })                            then one table: query parameters by their names,
//   engine:container_create{ name = "web", body = { Image = … } }   `body`, `auth`, `tty`, `timeout` (seconds)
//
// Answers: a decoded table, a string, a stream (stream.c), or true; then the HTTP status. Where the engine refuses or
// cannot be reached: nil and an error of kind "engine" (with `status` and the engine's own words), "unreachable",
// "timeout", "protocol" or "invalid". A call that is wrong in itself (an unknown option) raises.
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "endpoints.h"
#include "http.h"
#include "json.h"
#include "stream.h"
#include "url.h"

static const char ENGINE[] = "dockrun.engine";

// Versions of the API that this table was checked against (1.41 to 1.55); older engines speak subsets of it.
enum { OLDEST_API = 24, NEWEST_API = 55, MAX_ANSWER = 64 * 1024 * 1024 };

struct engine {
  char *url;          // without a slash at its end
  char *unix_socket;  // or NULL
  char *endpoint;     // as given
  char who[160];
  struct dr_tls tls;  // strings owned
  int api;            // minor version, 0 until negotiated
  double timeout;
};

// Where things are on the stack of a call under way.
enum { AT_ENGINE = 1, AT_OPTIONS, AT_PATH, AT_BODY, AT_EXCHANGE };

static struct engine *check_engine(lua_State *L) { return luaL_checkudata(L, 1, ENGINE); }

// ---- the request line and its body -------------------------------------------------------------

// The next name in a row's query list: its length, and the API version since which it exists (0: always).
static const char *next_query(const char **list, size_t *len, int *since) {
  while (**list == ' ') ++*list;
  if (!**list) return NULL;
  const char *name = *list;
  *list += strcspn(*list, " ");
  const char *at = memchr(name, '@', *list - name);
  *len = (at ? at : *list) - name;
  *since = at ? atoi(at + 3) : 0;  // "@1.42"
  return name;
}

static bool is_own_option(const char *name) {
  return !strcmp(name, "body") || !strcmp(name, "auth") || !strcmp(name, "timeout") || !strcmp(name, "tty");
}

// Raises for an option that the endpoint does not have, with those that it has.
static void check_options(lua_State *L, const struct dr_endpoint *row) {
  for (lua_pushnil(L); lua_next(L, AT_OPTIONS); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "%s: options are named", row->name);
    const char *given = lua_tostring(L, -2), *list = row->query, *name;
    bool known = is_own_option(given);
    size_t len;
    int since;
    while (!known && (name = next_query(&list, &len, &since))) known = strlen(given) == len && !memcmp(name, given, len);
    if (!known)
      luaL_error(L, "%s: no option '%s'; it takes: %s body auth tty timeout", row->name, given, row->query);
  }
}

// Appends the query to the URL at the top, or returns false: this engine is too old for the parameter whose name is
// then at the top.
static bool add_query(lua_State *L, const struct dr_endpoint *row, int api, int *needs) {
  const char *list = row->query, *name, *separator = "?";
  size_t len;
  while ((name = next_query(&list, &len, needs))) {
    lua_pushlstring(L, name, len);
    lua_pushvalue(L, -1);
    if (lua_gettable(L, AT_OPTIONS) == LUA_TNIL) {
      lua_pop(L, 2);
      continue;
    }
    int value = lua_gettop(L);
    if (*needs > api) {
      lua_settop(L, value - 1);
      return false;
    }
    if (lua_istable(L, value))
      dr_json_encode(L, value);
    else if (lua_isboolean(L, value))
      lua_pushstring(L, lua_toboolean(L, value) ? "true" : "false");
    else
      luaL_tolstring(L, value, NULL);
    lua_replace(L, value);
    const char *text = lua_tolstring(L, value, &len);
    lua_pushstring(L, separator);
    lua_insert(L, value - 1);
    lua_pushliteral(L, "=");
    dr_push_escaped(L, text, len, false);
    lua_remove(L, value + 1);  // url, separator, name, "=", escaped
    lua_concat(L, 5);
    separator = "&";
  }
  return true;
}

// Puts the path with its parameters at AT_PATH - 1 in place of them: they are the first arguments of the call.
static void push_path(lua_State *L, const struct dr_endpoint *row) {
  bool names_images = !strncmp(row->path, "/images/", 8);  // an image's name has slashes of its own
  int arg = 2, last = lua_gettop(L);
  lua_pushliteral(L, "");
  for (const char *p = row->path; *p;) {
    size_t plain = strcspn(p, "{");
    lua_pushlstring(L, p, plain);
    lua_concat(L, 2);
    p += plain;
    if (!*p) break;
    size_t len, name_len = strcspn(p, "}") - 1;
    const char *value = arg <= last && lua_type(L, arg) == LUA_TSTRING ? lua_tolstring(L, arg, &len) : NULL;
    if (!value || !len || !strcmp(value, ".") || strstr(value, ".."))
      luaL_error(L, "%s: its argument %d is the %s, a string that is not empty and has no '..'", row->name, arg - 1,
                 lua_pushlstring(L, p + 1, name_len));
    dr_push_escaped(L, value, len, names_images);
    lua_concat(L, 2);
    p += name_len + 2;
    arg++;
  }
  lua_insert(L, 2);
  for (; arg > 2; arg--) lua_remove(L, 3);
}

// ---- the way of a call -------------------------------------------------------------------------

static int answered(lua_State *L, int status, lua_KContext ctx);
static int upgraded(lua_State *L, int status, lua_KContext ctx);
static int negotiated(lua_State *L, int status, lua_KContext ctx);
static int pump(lua_State *L, int status, lua_KContext ctx);

static bool option_is(lua_State *L, const char *name, bool wanted) {
  lua_getfield(L, AT_OPTIONS, name);
  bool is = lua_isboolean(L, -1) && lua_toboolean(L, -1) == wanted;
  lua_pop(L, 1);
  return is;
}

static double timeout_of(lua_State *L, const struct engine *e, const struct dr_endpoint *row) {
  lua_getfield(L, AT_OPTIONS, "timeout");
  double given = dr_opt_seconds(L, -1, -1);
  lua_pop(L, 1);
  if (given >= 0) return given;
  bool streams = row->answer >= DR_ANSWER_BYTES;
  if (streams || row->body == DR_BODY_BYTES || !strcmp(row->name, "container_wait")) return -1;
  lua_getfield(L, AT_OPTIONS, "t");  // the engine itself waits this long
  double t = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 1);
  return e->timeout + (t > 0 ? t : 0);
}

static struct dr_request_options options_for(const struct engine *e, const char *method, const char *url) {
  return (struct dr_request_options){.method = method,
                                     .url = url,
                                     .unix_socket = e->unix_socket,
                                     .who = e->who,
                                     .tls = e->tls,
                                     .limit = MAX_ANSWER};
}

// What a streaming row gives for these options: `stream = false` asks for one document, `Detach` for no connection.
static enum dr_answer answer_of(lua_State *L, const struct dr_endpoint *row) {
  if (row->answer == DR_ANSWER_LINES && option_is(L, "stream", false)) return DR_ANSWER_JSON;
  if (row->answer != DR_ANSWER_HIJACK || lua_getfield(L, AT_OPTIONS, "body") != LUA_TTABLE) return row->answer;
  lua_getfield(L, -1, "Detach");
  bool detached = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return detached ? DR_ANSWER_NONE : DR_ANSWER_HIJACK;
}

static void push_auth(lua_State *L) {
  size_t len;
  if (lua_getfield(L, AT_OPTIONS, "auth") != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
  }
  dr_json_encode(L, -1);
  const char *json = lua_tolstring(L, -1, &len);
  dr_push_base64(L, json, len, true);
}

static void trace(lua_State *L, const struct dr_endpoint *row, const char *path) {
  lua_getiuservalue(L, AT_ENGINE, 1);
  if (lua_isfunction(L, -1)) {
    lua_createtable(L, 0, 5);
    lua_pushstring(L, row->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, row->method);
    lua_setfield(L, -2, "method");
    lua_pushstring(L, path);
    lua_setfield(L, -2, "path");
    lua_pushvalue(L, AT_OPTIONS);
    lua_setfield(L, -2, "options");
    lua_call(L, 1, 0);
  } else {
    lua_pop(L, 1);
  }
}

static int start_upgrade(lua_State *L, const struct engine *e, const struct dr_endpoint *row, const char *path) {
  struct dr_request_options o = options_for(e, row->method, e->url);
  struct dr_error error;
  size_t body_len = 0, len;
  const char *body = lua_isstring(L, AT_BODY) ? lua_tolstring(L, AT_BODY, &body_len) : "";
  const char *host = strstr(e->url, "://") + 3;
  lua_pushfstring(L,
                  "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: dockrun/" DOCKRUN_VERSION
                  "\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %I\r\n\r\n%s",
                  row->method, path, host, (LUAI_UACINT)body_len, body);
  const char *text = lua_tolstring(L, -1, &len);
  if (!dr_upgrade_start(L, &o, text, len, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  lua_settop(L, AT_EXCHANGE);
  return dr_upgrade_wait(L, AT_EXCHANGE, timeout_of(L, e, row), upgraded, (lua_KContext)row);
}

static int start(lua_State *L, const struct engine *e, const struct dr_endpoint *row) {
  int needs;
  struct dr_error error;
  lua_settop(L, AT_BODY);
  lua_pushnil(L);  // AT_EXCHANGE
  if (strcmp(row->name, "system_ping"))
    lua_pushfstring(L, "/v1.%d%s", e->api, lua_tostring(L, AT_PATH));
  else
    lua_pushvalue(L, AT_PATH);
  if (!add_query(L, row, e->api, &needs)) {
    dr_fail(&error, "invalid", EINVAL, "%s: '%s' needs API 1.%d, and %s speaks 1.%d", row->name, lua_tostring(L, -1),
            needs, e->who, e->api);
    return dr_return_error(L, &error);
  }
  const char *path = lua_tostring(L, -1);
  trace(L, row, path);
  enum dr_answer answer = answer_of(L, row);
  if (answer == DR_ANSWER_HIJACK) return start_upgrade(L, e, row, path);

  struct dr_request_options o = options_for(e, row->method, lua_pushfstring(L, "%s%s", e->url, path));
  o.stream = answer >= DR_ANSWER_BYTES;
  o.upload = lua_isfunction(L, AT_BODY);
  o.body = lua_isstring(L, AT_BODY) ? AT_BODY : 0;
  if (row->body != DR_BODY_NONE)
    o.headers = curl_slist_append(NULL, row->body == DR_BODY_JSON ? "Content-Type: application/json"
                                                                  : "Content-Type: application/x-tar");
  if (row->auth) {
    push_auth(L);
    struct curl_slist *more = curl_slist_append(o.headers, lua_pushfstring(L, "X-Registry-Auth: %s", lua_tostring(L, -1)));
    if (more) o.headers = more;
  }
  if (!dr_request_start(L, &o, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  lua_settop(L, AT_EXCHANGE);
  if (o.upload) return pump(L, LUA_OK, (lua_KContext)row);
  return dr_request_wait(L, AT_EXCHANGE, timeout_of(L, e, row), answered, (lua_KContext)row);
}

static int pumped(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  struct dr_channel *c = &((struct dr_request *)lua_touserdata(L, AT_EXCHANGE))->channel;
  size_t len;
  if (lua_isnil(L, -1)) {
    c->half_close(c);
    lua_settop(L, AT_EXCHANGE);
    return dr_request_wait(L, AT_EXCHANGE, -1, answered, ctx);
  }
  const char *chunk = lua_tolstring(L, -1, &len);
  if (!chunk || dr_buffer_add(&c->out, chunk, len)) {
    c->close(c);
    return luaL_error(L, chunk ? "out of memory" : "a body function returns strings, then nil");
  }
  c->flush(c);
  lua_settop(L, AT_EXCHANGE);
  if (dr_buffer_len(&c->out) > DR_HIGH_WATER && !c->ended) return dr_wait(L, &c->writer, AT_EXCHANGE, -1, pump, ctx);
  return pump(L, LUA_OK, ctx);
}

// Sends a body that a function gives piece by piece.
static int pump(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  for (;;) {
    struct dr_channel *c = &((struct dr_request *)lua_touserdata(L, AT_EXCHANGE))->channel;
    if (c->ended) return answered(L, LUA_OK, ctx);  // refused early
    lua_pushvalue(L, AT_BODY);
    lua_callk(L, 0, 1, ctx, pumped);
    return pumped(L, LUA_OK, ctx);
  }
}

// ---- answers -----------------------------------------------------------------------------------

// Pushes nil and the engine's refusal: its `message` where the body is its JSON, else the body as it is.
static int refused(lua_State *L, const struct engine *e, const struct dr_endpoint *row, long status,
                   const struct dr_buffer *in) {
  size_t len = dr_buffer_len(in);
  const char *text = len ? dr_buffer_data(in) : "";
  int top = lua_gettop(L);
  if (dr_json_decode(L, text, len) == 1 && lua_istable(L, -1) && lua_getfield(L, -1, "message") == LUA_TSTRING)
    text = lua_tolstring(L, -1, &len);
  while (len && (text[len - 1] == '\n' || text[len - 1] == '\r')) len--;
  if (!len) {
    text = lua_pushfstring(L, "%s answered %d to %s %s", e->who, (int)status, row->method, row->path);
    len = strlen(text);
  }
  lua_pushnil(L);
  dr_push_error_text(L, "engine", (int)status, text, len);
  lua_pushstring(L, row->name);
  lua_setfield(L, -2, "call");
  lua_replace(L, top + 2);
  lua_replace(L, top + 1);
  lua_settop(L, top + 2);
  return 2;
}

static int push_json_answer(lua_State *L, const struct engine *e, const struct dr_endpoint *row,
                            const struct dr_buffer *in) {
  struct dr_error error;
  size_t len = dr_buffer_len(in);
  if (len && dr_json_decode(L, dr_buffer_data(in), len) == 1) return 1;
  lua_settop(L, AT_EXCHANGE);
  dr_fail(&error, "protocol", EPROTO, "the answer to %s %s is not JSON, from %s: %.*s", row->method, row->path, e->who,
          len < 200 ? (int)len : 200, len ? dr_buffer_data(in) : "");
  return dr_return_error(L, &error);
}

// HEAD …/archive answers by a header: base64 of {name, size, mode, mtime, linkTarget}.
static int push_path_stat(lua_State *L, const struct engine *e, const struct dr_endpoint *row,
                          const struct dr_request *r) {
  char text[4096];
  size_t len;
  if (dr_header(&r->headers, "x-docker-container-path-stat", text, sizeof text) &&
      dr_push_unbase64(L, text, strlen(text))) {
    const char *json = lua_tolstring(L, -1, &len);
    if (dr_json_decode(L, json, len) == 1) return 1;
  }
  struct dr_error error;
  dr_fail(&error, "protocol", EPROTO, "no path stat in the answer to %s %s, from %s", row->method, row->path, e->who);
  return dr_return_error(L, &error);
}

static enum dr_stream_kind stream_kind(lua_State *L, const struct engine *e, enum dr_answer answer,
                                       const struct dr_buffer *headers, bool body_tty) {
  char type[128] = "";
  if (answer == DR_ANSWER_BYTES) return DR_STREAM_BYTES;
  if (answer == DR_ANSWER_LINES) return DR_STREAM_LINES;
  dr_header(headers, "content-type", type, sizeof type);
  if (strstr(type, "multiplexed-stream")) return DR_STREAM_FRAMES;
  // Before API 1.42 the engine calls both forms raw; then only the caller can know.
  if (e->api >= 42 && strstr(type, "raw-stream")) return DR_STREAM_RAW;
  return body_tty || option_is(L, "tty", true) ? DR_STREAM_RAW : DR_STREAM_FRAMES;
}

static int answered(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_endpoint *row = (const struct dr_endpoint *)ctx;
  struct engine *e = check_engine(L);
  struct dr_request *r = lua_touserdata(L, AT_EXCHANGE);
  enum dr_answer answer = answer_of(L, row);
  lua_settop(L, AT_EXCHANGE);
  int results = 1;
  if (r->channel.failed) {
    results = dr_return_error(L, &r->channel.error);
  } else if (r->status >= 400) {
    if (r->status == 400) e->api = 0;  // it may be another engine now, with another version: ask again next time
    results = refused(L, e, row, r->status, &r->channel.in);
  } else if (answer >= DR_ANSWER_BYTES) {
    dr_stream_push(L, &r->channel, &r->headers, stream_kind(L, e, answer, &r->headers, false));
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

static int upgraded(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_endpoint *row = (const struct dr_endpoint *)ctx;
  struct engine *e = check_engine(L);
  struct dr_upgrade *u = lua_touserdata(L, AT_EXCHANGE);
  if (u->channel.failed || u->status >= 400) {
    int results = u->channel.failed ? dr_return_error(L, &u->channel.error)
                                    : refused(L, e, row, u->status, &u->channel.in);
    u->channel.close(&u->channel);
    return results;
  }
  bool tty = false;
  if (lua_getfield(L, AT_OPTIONS, "body") == LUA_TTABLE) {
    lua_getfield(L, -1, "Tty");
    tty = lua_toboolean(L, -1);
  }
  lua_settop(L, AT_EXCHANGE);
  dr_stream_push(L, &u->channel, &u->headers, stream_kind(L, e, DR_ANSWER_HIJACK, &u->headers, tty));
  lua_pushinteger(L, u->status);
  return 2;
}

// ---- version negotiation -----------------------------------------------------------------------

static int minor_of(lua_State *L, const char *field) {
  int minor = 0;
  if (lua_getfield(L, -1, field) == LUA_TSTRING) sscanf(lua_tostring(L, -1), "1.%d", &minor);
  lua_pop(L, 1);
  return minor;
}

static int negotiated(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_endpoint *row = (const struct dr_endpoint *)ctx;
  struct engine *e = check_engine(L);
  struct dr_request *r = lua_touserdata(L, AT_EXCHANGE);
  struct dr_error error;
  if (r->channel.failed || r->status >= 400) {
    int results = r->channel.failed ? dr_return_error(L, &r->channel.error)
                                    : refused(L, e, row, r->status, &r->channel.in);
    r->channel.close(&r->channel);
    return results;
  }
  size_t len = dr_buffer_len(&r->channel.in);
  if (!len || dr_json_decode(L, dr_buffer_data(&r->channel.in), len) != 1 || !lua_istable(L, -1) ||
      !minor_of(L, "ApiVersion")) {
    r->channel.close(&r->channel);
    dr_fail(&error, "protocol", EPROTO, "%s does not tell its API version: is it a Docker engine?", e->who);
    return dr_return_error(L, &error);
  }
  int newest = minor_of(L, "ApiVersion"), oldest = minor_of(L, "MinAPIVersion");
  r->channel.close(&r->channel);
  if (newest < OLDEST_API || oldest > NEWEST_API) {
    dr_fail(&error, "invalid", EPROTO, "%s speaks API 1.%d to 1.%d, dockrun 1.%d to 1.%d", e->who, oldest, newest,
            OLDEST_API, NEWEST_API);
    return dr_return_error(L, &error);
  }
  e->api = newest < NEWEST_API ? newest : NEWEST_API;
  return start(L, e, row);
}

static int negotiate(lua_State *L, struct engine *e, const struct dr_endpoint *row) {
  struct dr_error error;
  struct dr_request_options o = options_for(e, "GET", lua_pushfstring(L, "%s/version", e->url));
  if (!dr_request_start(L, &o, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  double timeout = timeout_of(L, e, row);
  return dr_request_wait(L, AT_EXCHANGE, timeout < 0 ? e->timeout : timeout, negotiated, (lua_KContext)row);
}

// engine:<row>(path parameter…, options)
static int l_call(lua_State *L) {
  struct engine *e = check_engine(L);
  const struct dr_endpoint *row = lua_touserdata(L, lua_upvalueindex(1));
  struct dr_error error;
  push_path(L, row);  // engine, path, options
  if (lua_gettop(L) < 3 || lua_isnil(L, 3)) {
    lua_settop(L, 2);
    lua_newtable(L);
  }
  luaL_argexpected(L, lua_istable(L, 3), 3, "table of options");
  lua_settop(L, 3);
  lua_insert(L, AT_OPTIONS);  // engine, options, path
  check_options(L, row);
  int body = lua_getfield(L, AT_OPTIONS, "body");
  if (row->body == DR_BODY_JSON && (body == LUA_TTABLE || body == LUA_TNIL)) {
    if (body == LUA_TNIL) {
      lua_pop(L, 1);
      lua_newtable(L);
    }
    lua_pushcfunction(L, (lua_CFunction)luaopen_dockrun_core_json);
    lua_call(L, 0, 1);
    lua_getfield(L, -1, "encode");
    lua_remove(L, -2);
    lua_insert(L, AT_BODY);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {  // a hook may have put anything into it
      dr_fail(&error, "invalid", EINVAL, "%s: its body is not JSON: %s", row->name, luaL_tolstring(L, -1, NULL));
      return dr_return_error(L, &error);
    }
  } else if (body != LUA_TNIL && (row->body != DR_BODY_BYTES || (body != LUA_TSTRING && body != LUA_TFUNCTION))) {
    static const char *const wants[] = {"no body", "a table as its body", "a string or a function as its body"};
    return luaL_error(L, "%s takes %s, not a %s", row->name, wants[row->body], lua_typename(L, body));
  }
  lua_settop(L, AT_BODY);
  lua_pushnil(L);
  return e->api ? start(L, e, row) : negotiate(L, e, row);
}

// ---- connecting --------------------------------------------------------------------------------

static int parse_endpoint(struct engine *e, struct dr_error *error) {
  static const struct {
    const char *scheme, *url;
  } schemes[] = {{"tcp://", "http://"}, {"http://", "http://"}, {"https://", "https://"}};
  const char *endpoint = e->endpoint;
  if (!strncmp(endpoint, "unix://", 7) && endpoint[7]) {
    e->unix_socket = strdup(endpoint + 7);
    e->url = strdup("http://docker");
    return e->unix_socket && e->url ? 0 : dr_fail(error, "system", ENOMEM, "out of memory");
  }
  for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
    size_t len = strlen(schemes[i].scheme);
    if (strncmp(endpoint, schemes[i].scheme, len) || !endpoint[len]) continue;
    bool tls = e->tls.ca || e->tls.cert || e->tls.insecure;
    const char *url = tls ? "https://" : schemes[i].url;
    if (asprintf(&e->url, "%s%s", url, endpoint + len) < 0) {
      e->url = NULL;
      return dr_fail(error, "system", ENOMEM, "out of memory");
    }
    for (size_t end = strlen(e->url); end && e->url[end - 1] == '/'; end--) e->url[end - 1] = '\0';
    return 0;
  }
  return dr_fail(error, "invalid", EINVAL,
                 "the endpoint '%s' is none of unix:///path, tcp://host:port, http://host:port, https://host:port",
                 endpoint);
}

static char *copy_field(lua_State *L, int idx, const char *name) {
  char *copy = NULL;
  if (lua_getfield(L, idx, name) == LUA_TSTRING) {
    copy = strdup(lua_tostring(L, -1));
    if (!copy) luaL_error(L, "out of memory");
  }
  lua_pop(L, 1);
  return copy;
}

// docker.connect{endpoint = "unix:///var/run/docker.sock", timeout = 60, tls = {ca, cert, key, insecure}, trace}
//   -> engine | nil, err (kind "invalid"). Nothing is sent yet; the first call negotiates the API version.
// trace(call) sees every request before it is sent: {name, method, path (with the query), options}.
static int l_connect(lua_State *L) {
  struct dr_error error;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  struct engine *e = lua_newuserdatauv(L, sizeof *e, 1);
  memset(e, 0, sizeof *e);
  luaL_setmetatable(L, ENGINE);
  e->endpoint = copy_field(L, 1, "endpoint");
  if (!e->endpoint) return luaL_error(L, "docker.connect: 'endpoint' is missing");
  lua_getfield(L, 1, "timeout");
  e->timeout = dr_opt_seconds(L, -1, 60);
  lua_getfield(L, 1, "trace");
  lua_setiuservalue(L, 2, 1);
  if (lua_getfield(L, 1, "tls") == LUA_TTABLE) {
    e->tls = (struct dr_tls){copy_field(L, -1, "ca"), copy_field(L, -1, "cert"), copy_field(L, -1, "key"), false};
    lua_getfield(L, -1, "insecure");
    e->tls.insecure = lua_toboolean(L, -1);
  }
  snprintf(e->who, sizeof e->who, "the Docker engine at %s", e->endpoint);
  if (parse_endpoint(e, &error)) return dr_return_error(L, &error);
  lua_settop(L, 2);
  return 1;
}

static int l_gc(lua_State *L) {
  struct engine *e = check_engine(L);
  free(e->url);
  free(e->unix_socket);
  free(e->endpoint);
  free((char *)e->tls.ca);
  free((char *)e->tls.cert);
  free((char *)e->tls.key);
  memset(e, 0, sizeof *e);
  return 0;
}

// engine:endpoint() -> as it was given
static int l_endpoint(lua_State *L) {
  lua_pushstring(L, check_engine(L)->endpoint);
  return 1;
}

// engine:api() -> "1.41", or nil before the first call
static int l_api(lua_State *L) {
  struct engine *e = check_engine(L);
  if (e->api) lua_pushfstring(L, "1.%d", e->api);
  return e->api ? 1 : 0;
}

static int l_tostring(lua_State *L) {
  lua_pushfstring(L, "engine (%s)", check_engine(L)->endpoint);
  return 1;
}

int luaopen_dockrun_core_docker(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"endpoint", l_endpoint}, {"api", l_api}, {"__gc", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};
  static const luaL_Reg module[] = {{"connect", l_connect}, {NULL, NULL}};
  luaL_newmetatable(L, ENGINE);
  luaL_setfuncs(L, methods, 0);
  for (size_t i = 0; i < dr_endpoints_count; i++) {
    lua_pushlightuserdata(L, (void *)&dr_endpoints[i]);
    lua_pushcclosure(L, l_call, 1);
    lua_setfield(L, -2, dr_endpoints[i].name);
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
