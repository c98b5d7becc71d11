// The way of a call: its URL, query, headers and body go out.
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/encoding.h"
#include "data/json.h"
#include "data/lua_util.h"
#include "docker/engine.h"

enum { MAX_ANSWER = 64 * 1024 * 1024 };

const char *dr_next_query(const char **list, size_t *len, int *since) {
  while (**list == ' ') ++*list;
  if (!**list) return NULL;
  const char *name = *list;
  *list += strcspn(*list, " ");
  const char *at = memchr(name, '@', *list - name);
  *len = (at ? at : *list) - name;
  *since = at ? atoi(at + 3) : 0;  // "@1.42"
  return name;
}

// Pushes the value at idx as text: JSON of a map, 5.0 as 5, or what tostring gives.
static void call_push_text(lua_State *L, int idx) {
  int whole;
  lua_Integer n = lua_type(L, idx) == LUA_TNUMBER ? lua_tointegerx(L, idx, &whole) : (whole = 0);
  if (lua_istable(L, idx))
    dr_json_encode(L, idx);
  else if (whole)
    lua_pushfstring(L, "%I", (LUAI_UACINT)n);
  else
    luaL_tolstring(L, idx, NULL);
}

// Appends name=value to the URL at index url. The value's text is at the top, and popped.
static void call_add_parameter(lua_State *L, int url, const char *name) {
  size_t len;
  const char *text = lua_tolstring(L, -1, &len);
  lua_pushvalue(L, url);
  lua_pushfstring(L, "%s%s=", strchr(lua_tostring(L, url), '?') ? "&" : "?", name);
  dr_push_escaped(L, text, len, false);
  lua_concat(L, 3);
  lua_replace(L, url);
  lua_pop(L, 1);
}

// Appends the query to the URL at the top, or returns false: this engine is too old for the parameter whose name is
// then at the top. A list is a repeated parameter, a map (filters) is JSON.
static bool call_add_query(lua_State *L, const struct dr_operation *row, int api, int *needs) {
  const char *list = row->query, *found;
  int url = lua_gettop(L);
  size_t len;
  while ((found = dr_next_query(&list, &len, needs))) {
    const char *name = lua_pushlstring(L, found, len);
    if (lua_getfield(L, AT_OPTIONS, name) != LUA_TNIL && *needs > api) {
      lua_pop(L, 1);
      return false;
    }
    int items = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    for (int i = 1; i <= items; i++) {
      lua_rawgeti(L, url + 2, i);
      call_push_text(L, -1);
      call_add_parameter(L, url, name);
      lua_pop(L, 1);
    }
    if (!items && !lua_isnil(L, -1)) {
      call_push_text(L, -1);
      call_add_parameter(L, url, name);
    }
    lua_settop(L, url);
  }
  return true;
}

static double call_timeout(lua_State *L, const struct dr_engine *e, const struct dr_operation *row) {
  lua_getfield(L, AT_OPTIONS, "timeout");
  double given = dr_opt_seconds(L, -1, -1);
  lua_pop(L, 1);
  if (given >= 0) return given;
  bool streams = row->answer >= DR_ANSWER_BYTES;
  if (streams || row->body == DR_BODY_BYTES || row->flags & DR_ENDLESS) return -1;
  if (!(row->flags & DR_ENGINE_WAITS)) return e->timeout;
  lua_getfield(L, AT_OPTIONS, "t");
  double t = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : 0;
  lua_pop(L, 1);
  return e->timeout + (t > 0 ? t : 0);
}

struct dr_request_options dr_options_for(const struct dr_engine *e, const char *method, const char *url) {
  return (struct dr_request_options){
      .method = method, .url = url, .unix_socket = e->unix_socket, .who = e->who, .tls = e->tls, .limit = MAX_ANSWER};
}

static void call_push_auth(lua_State *L) {
  size_t len;
  if (lua_getfield(L, AT_OPTIONS, "auth") != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
  }
  dr_json_encode(L, -1);
  const char *json = lua_tolstring(L, -1, &len);
  dr_push_base64(L, json, len, true);
}

static void call_trace(lua_State *L, const struct dr_operation *row, const char *path) {
  lua_getiuservalue(L, AT_ENGINE, DR_ENGINE_TRACE);
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

static int call_upgrade(lua_State *L, const struct dr_engine *e, const struct dr_operation *row, const char *path) {
  struct dr_request_options o = dr_options_for(e, row->method, e->url);
  struct dr_error error;
  size_t body_len = 0, len;
  const char *body = lua_isstring(L, AT_BODY) ? lua_tolstring(L, AT_BODY, &body_len) : "";
  const char *host = strstr(e->url, "://") + 3, *prefix = host + strcspn(host, "/");
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  lua_pushfstring(L, "%s %s%s HTTP/1.1\r\nHost: ", row->method, prefix, path);
  luaL_addvalue(&b);
  luaL_addlstring(&b, host, prefix - host);
  lua_pushfstring(
      L,
      "\r\nUser-Agent: dockrun/" DOCKRUN_VERSION
      "\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %I\r\n\r\n",
      (LUAI_UACINT)body_len);
  luaL_addvalue(&b);
  luaL_addlstring(&b, body, body_len);
  luaL_pushresult(&b);
  const char *text = lua_tolstring(L, -1, &len);
  if (!dr_upgrade_start(L, &o, text, len, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  lua_settop(L, AT_EXCHANGE);
  return dr_upgrade_wait(L, AT_EXCHANGE, call_timeout(L, e, row), dr_upgraded, (lua_KContext)row);
}

// Pushes the list of a request's headers, beside those that libcurl writes.
static void call_push_headers(lua_State *L, const struct dr_operation *row) {
  static const char *const types[] = {"Content-Type:", "Content-Type: application/json",
                                      "Content-Type: application/x-tar"};  // as enum dr_body; without a body none
  lua_createtable(L, 2, 0);
  int list = lua_gettop(L);
  lua_pushstring(L, types[row->body]);
  lua_rawseti(L, list, 1);
  if (!(row->flags & DR_AUTH)) return;
  call_push_auth(L);
  lua_pushfstring(L, "X-Registry-Auth: %s", lua_tostring(L, -1));
  lua_rawseti(L, list, 2);
  lua_settop(L, list);
}

double dr_time_left(lua_State *L) {
  if (lua_isnil(L, AT_DEADLINE)) return -1;
  double left = lua_tonumber(L, AT_DEADLINE) - (double)uv_hrtime() / 1e9;
  return left > 0 ? left : 0;
}

// Puts the time until which something may take at AT_DEADLINE; below 0 it may take as long as it takes.
static void call_set_deadline(lua_State *L, double timeout) {
  lua_settop(L, AT_EXCHANGE);
  timeout < 0 ? lua_pushnil(L) : lua_pushnumber(L, (double)uv_hrtime() / 1e9 + timeout);
}

int dr_call_on(lua_State *L, const struct dr_operation *row) {
  const struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  int needs;
  struct dr_error error;
  lua_settop(L, AT_BODY);
  lua_settop(L, AT_DEADLINE);  // which nothing is at yet
  if (!(row->flags & DR_UNVERSIONED))
    lua_pushfstring(L, "/v1.%d%s", e->api, lua_tostring(L, AT_PATH));
  else
    lua_pushvalue(L, AT_PATH);
  if (!call_add_query(L, row, e->api, &needs)) {
    dr_fail(&error, "invalid", EINVAL, "%s: '%s' needs API 1.%d, and %s speaks 1.%d", row->name, lua_tostring(L, -1),
            needs, e->who, e->api);
    return dr_return_error(L, &error);
  }
  const char *path = lua_tostring(L, -1);
  call_trace(L, row, path);
  enum dr_answer answer = dr_answer_of(L, row);
  if (answer == DR_ANSWER_HIJACK) return call_upgrade(L, e, row, path);

  struct dr_request_options o = dr_options_for(e, row->method, lua_pushfstring(L, "%s%s", e->url, path));
  o.stream = answer >= DR_ANSWER_BYTES;
  o.upload = lua_isfunction(L, AT_BODY);
  o.body = lua_isstring(L, AT_BODY) ? AT_BODY : 0;
  call_push_headers(L, row);
  o.headers = lua_gettop(L);
  if (!dr_request_start(L, &o, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  double timeout = call_timeout(L, e, row);
  call_set_deadline(L, timeout);
  if (o.upload) return dr_upload(L, row);
  return dr_request_wait(L, AT_EXCHANGE, timeout, dr_answered, (lua_KContext)row);
}

int dr_call(lua_State *L, const struct dr_operation *row) {
  const struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  if (row->flags & DR_UNVERSIONED) return dr_call_on(L, row);
  double timeout = call_timeout(L, e, row);
  call_set_deadline(L, timeout < 0 ? e->timeout : timeout);
  return dr_negotiate(L, row);
}
