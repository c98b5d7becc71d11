// dockrun.core.http: requests of scripts.
#include <errno.h>
#include <lauxlib.h>
#include <string.h>
#include <strings.h>

#include "data/error.h"
#include "data/lua_util.h"
#include "http/http.h"

static int http_answered(lua_State *L, int status, lua_KContext ctx) {
  (void)status, (void)ctx;
  struct dr_request *r = lua_touserdata(L, -1);
  if (r->channel.failed) {
    dr_return_error(L, &r->channel.error);
    r->channel.close(&r->channel);
    return 2;
  }
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, r->status);
  lua_setfield(L, -2, "status");
  dr_push_headers(L, &r->headers);
  lua_setfield(L, -2, "headers");
  lua_pushlstring(L, dr_buffer_len(&r->channel.in) ? dr_buffer_data(&r->channel.in) : "",
                  dr_buffer_len(&r->channel.in));
  lua_setfield(L, -2, "body");
  r->channel.close(&r->channel);
  return 1;
}

static const char *http_opt_field(lua_State *L, const char *name, const char *fallback) {
  int type = lua_getfield(L, 1, name);  // stays on the stack: the string must outlive the call
  if (type == LUA_TNIL) return fallback;
  if (type != LUA_TSTRING) luaL_error(L, "http.request: '%s' must be a string, not a %s", name, lua_typename(L, type));
  return lua_tostring(L, -1);
}

static bool is_http(const char *url) { return !strncasecmp(url, "http://", 7) || !strncasecmp(url, "https://", 8); }

// Pushes the line of the header at -2 (name) and -1 (value), as libcurl wants it.
static void http_push_header(lua_State *L) {
  const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL, *value = lua_tostring(L, -1);
  if (!name || !*name || !value || strpbrk(name, "\r\n:") || strpbrk(value, "\r\n"))
    luaL_error(L, "http.request: a header is a name and a value without line breaks");
  lua_pushfstring(L, *value ? "%s: %s" : "%s;", name, value);
}

// http.request{url, method = "GET", headers = {}, body, unix_socket, timeout = 60, limit = 64 MiB}
//   -> {status, headers (lower-case names), body} | nil, err
static int l_request(lua_State *L) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-";
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  struct dr_error e;
  struct dr_request_options o = {.method = http_opt_field(L, "method", "GET"), .proxy = true};
  if (!*o.method || o.method[strspn(o.method, letters)]) return luaL_error(L, "http.request: 'method' must be a word");
  o.url = http_opt_field(L, "url", NULL);
  if (!o.url) return luaL_error(L, "http.request: 'url' is missing");
  o.who = o.url;
  o.unix_socket = http_opt_field(L, "unix_socket", NULL);
  if (http_opt_field(L, "body", NULL)) o.body = lua_gettop(L);
  lua_getfield(L, 1, "limit");
  lua_Integer limit = luaL_optinteger(L, -1, 64 << 20);
  if (limit < 0) return luaL_error(L, "http.request: 'limit' must be a number of bytes of at least 0");
  o.limit = (size_t)limit;
  lua_getfield(L, 1, "timeout");
  double timeout = dr_opt_seconds(L, lua_gettop(L), 60);
  if (!is_http(o.url)) {
    dr_fail(&e, "invalid", EINVAL, "the URL '%s' is neither http:// nor https://", o.url);
    return dr_return_error(L, &e);
  }
  lua_newtable(L);
  o.headers = lua_gettop(L);
  if (lua_getfield(L, 1, "headers") == LUA_TTABLE) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      http_push_header(L);
      lua_rawseti(L, o.headers, (lua_Integer)lua_rawlen(L, o.headers) + 1);
    }
  }
  if (!dr_request_start(L, &o, &e)) return dr_return_error(L, &e);
  return dr_request_wait(L, lua_gettop(L), timeout, http_answered, 0);
}

int luaopen_dockrun_core_http(lua_State *L) {
  static const luaL_Reg module[] = {{"request", l_request}, {NULL, NULL}};
  luaL_newlib(L, module);
  return 1;
}
