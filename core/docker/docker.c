// dockrun.core.docker: the Engine API. A row for each operation (operations.c), one dispatcher (here).
//
//   local engine = docker.connect{ endpoint = "unix:///var/run/docker.sock" }
//   engine:container_inspect(id)                                    path parameters first, in the path's order
//   engine:container_stop(id, { t = 5 })                            then one table: query parameters by their names,
//   engine:container_create{ name = "web", body = { Image = … } }   `body`, `auth`, `tty`, `timeout` (seconds)
//
// Answers: a decoded table, a string, a stream (stream.c), or true; then the HTTP status. If the engine refuses or
// cannot be reached: nil and an error of kind "engine" (with `status` and the engine's own words), "unreachable",
// "timeout", "protocol" or "invalid". A call that is wrong in itself (an unknown option) raises.
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/encoding.h"
#include "data/json.h"
#include "data/lua_util.h"
#include "docker/engine.h"

static const char ENGINE[] = "dockrun.engine";

static struct dr_engine *check_engine(lua_State *L) {
  struct dr_engine *e = luaL_checkudata(L, AT_ENGINE, ENGINE);
  if (!e->endpoint) luaL_error(L, "the engine is gone: its state is closing");
  return e;
}

// ---- a call's arguments ------------------------------------------------------------------------

static bool is_own_option(const char *name) {
  return !strcmp(name, "body") || !strcmp(name, "auth") || !strcmp(name, "timeout") || !strcmp(name, "tty");
}

// Raises for an option that the operation does not have, and names those that it has.
static void check_options(lua_State *L, const struct dr_operation *row) {
  for (lua_pushnil(L); lua_next(L, AT_OPTIONS); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "%s: options are named", row->name);
    const char *given = lua_tostring(L, -2), *list = row->query, *name;
    bool known = is_own_option(given);
    size_t len;
    int since;
    while (!known && (name = dr_next_query(&list, &len, &since)))
      known = strlen(given) == len && !memcmp(name, given, len);
    if (!known) luaL_error(L, "%s: no option '%s'; it takes: %s body auth tty timeout", row->name, given, row->query);
  }
}

// Puts the path with its parameters at AT_PATH - 1 in place of them: they are the first arguments of the call.
static void push_path(lua_State *L, const struct dr_operation *row) {
  bool slashes = row->flags & DR_SLASHES;
  int arg = 2, last = lua_gettop(L);
  lua_pushliteral(L, "");
  for (const char *p = row->path; *p;) {
    size_t plain = strcspn(p, "{");
    lua_pushlstring(L, p, plain);
    lua_concat(L, 2);
    p += plain;
    if (!*p) break;
    size_t len = 0, name_len = strcspn(p, "}") - 1;
    const char *value = arg <= last && lua_type(L, arg) == LUA_TSTRING ? lua_tolstring(L, arg, &len) : NULL;
    if (value && !slashes && *value == '/') value++, len--;  // the engine's own lists have names with a slash
    if (!value || !len || !strcmp(value, ".") || strstr(value, ".."))
      luaL_error(L, "%s: its argument %d is the %s, a string that is not empty and has no '..'", row->name, arg - 1,
                 lua_pushlstring(L, p + 1, name_len));
    dr_push_escaped(L, value, len, slashes);
    lua_concat(L, 2);
    p += name_len + 2;
    arg++;
  }
  lua_insert(L, 2);
  for (; arg > 2; arg--) lua_remove(L, 3);
}

static int encode_body(lua_State *L) {
  dr_json_encode(L, 1);
  return 1;
}

// engine:<row>(path parameter…, options)
static int l_call(lua_State *L) {
  check_engine(L);
  const struct dr_operation *row = lua_touserdata(L, lua_upvalueindex(1));
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
    lua_pushcfunction(L, encode_body);
    lua_insert(L, AT_BODY);
    if (dr_protected(L, 1, 1) != LUA_OK) {  // a hook may have put anything into it
      dr_fail(&error, "invalid", EINVAL, "%s: its body is not JSON: %s", row->name, luaL_tolstring(L, -1, NULL));
      return dr_return_error(L, &error);
    }
  } else if (body != LUA_TNIL && (row->body != DR_BODY_BYTES || (body != LUA_TSTRING && body != LUA_TFUNCTION))) {
    static const char *const wants[] = {"no body", "a table as its body", "a string or a function as its body"};
    return luaL_error(L, "%s takes %s, not a %s", row->name, wants[row->body], lua_typename(L, body));
  }
  lua_settop(L, AT_BODY);
  lua_pushnil(L);
  return dr_call(L, row);
}

// ---- connecting --------------------------------------------------------------------------------

static int parse_endpoint(struct dr_engine *e, struct dr_error *error) {
  static const struct {
    const char *scheme, *url;
  } schemes[] = {{"tcp://", "http://"}, {"http://", "http://"}, {"https://", "https://"}};
  const char *endpoint = e->endpoint;
  if (e->unix_socket || (!strncmp(endpoint, "unix://", 7) && endpoint[7])) {
    if (!e->unix_socket) e->unix_socket = strdup(endpoint + 7);
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
                 "the endpoint '%s' is none of unix:///path, tcp://host:port, http://host:port, https://host:port, "
                 "ssh://[user@]host",
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

// docker.connect{endpoint = "unix:///var/run/docker.sock", timeout = 60, tls = {ca, cert, key, insecure}, trace,
// check}
//   -> engine | nil, err (kind "invalid"). Nothing is sent yet; the first call negotiates the API version.
// socket: a unix socket that leads to the engine, whatever the endpoint is.
// trace(call) sees every request before it is sent: {name, method, path (with the query), options}. check(name, answer)
// sees every answer that is one JSON document, and each document of a stream, and may return what is wrong with it:
// then the call, or the read, fails.
static int l_connect(lua_State *L) {
  struct dr_error error;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  struct dr_engine *e = lua_newuserdatauv(L, sizeof *e, DR_ENGINE_FAILURE);
  memset(e, 0, sizeof *e);
  luaL_setmetatable(L, ENGINE);
  e->endpoint = copy_field(L, 1, "endpoint");
  if (!e->endpoint) return luaL_error(L, "docker.connect: 'endpoint' is missing");
  e->unix_socket = copy_field(L, 1, "socket");
  lua_getfield(L, 1, "timeout");
  e->timeout = dr_opt_seconds(L, -1, 60);
  lua_getfield(L, 1, "trace");
  lua_setiuservalue(L, 2, DR_ENGINE_TRACE);
  lua_getfield(L, 1, "check");
  lua_setiuservalue(L, 2, DR_ENGINE_CHECK);
  if (lua_getfield(L, 1, "tls") == LUA_TTABLE) {
    e->tls.ca = copy_field(L, -1, "ca");
    e->tls.cert = copy_field(L, -1, "cert");
    e->tls.key = copy_field(L, -1, "key");
    lua_getfield(L, -1, "insecure");
    e->tls.insecure = lua_toboolean(L, -1);
  }
  snprintf(e->who, sizeof e->who, "the Docker engine at %s", e->endpoint);
  if (parse_endpoint(e, &error)) return dr_return_error(L, &error);
  lua_settop(L, 2);
  return 1;
}

static int l_gc(lua_State *L) {
  struct dr_engine *e = luaL_checkudata(L, 1, ENGINE);
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
  struct dr_engine *e = check_engine(L);
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
  luaL_requiref(L, "dockrun.core.json", luaopen_dockrun_core_json, 0);  // its lists
  luaL_newmetatable(L, ENGINE);
  luaL_setfuncs(L, methods, 0);
  for (size_t i = 0; i < dr_operations_count; i++) {
    lua_pushlightuserdata(L, (void *)&dr_operations[i]);
    lua_pushcclosure(L, l_call, 1);
    lua_setfield(L, -2, dr_operations[i].name);
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
