#include "data/error.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char ERROR[] = "dockrun.error";

static int error_fill(struct dr_error *e, const char *kind, int code, const char *format, va_list args) {
  if (e) {
    e->kind = kind;
    e->code = code;
    vsnprintf(e->message, sizeof e->message, format, args);
  }
  return -code;
}

int dr_fail(struct dr_error *e, const char *kind, int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int rc = error_fill(e, kind, code, format, args);
  va_end(args);
  return rc;
}

int dr_fail_errno(struct dr_error *e, int errnum, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int rc = error_fill(e, "system", errnum, format, args);
  va_end(args);
  if (e) {
    size_t used = strlen(e->message);
    snprintf(e->message + used, sizeof e->message - used, ": %s", strerror(errnum));
  }
  return rc;
}

static int l_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "message");
  if (!lua_isstring(L, -1)) lua_pushliteral(L, "unknown error");
  return 1;
}

int dr_push_error_text(lua_State *L, const char *kind, int status, const char *message, size_t len) {
  lua_createtable(L, 0, 4);
  lua_pushstring(L, kind);
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, message, len);
  lua_setfield(L, -2, "message");
  if (status) {
    lua_pushinteger(L, status);
    lua_setfield(L, -2, "status");
  }
  luaL_newmetatable(L, ERROR);
  lua_pushcfunction(L, l_tostring);  // each time, see dr_set_gc
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
  return 1;
}

bool dr_push_sentence(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 4, NULL);
  if (lua_isstring(L, idx)) {
    lua_pushvalue(L, idx);
    lua_tostring(L, -1);
    return true;
  }
  if (luaL_getmetafield(L, idx, "__tostring") != LUA_TNIL) {
    lua_pushvalue(L, idx);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING) return false;
    lua_pop(L, 1);
  }
  lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, idx));
  return true;
}

int dr_return_error(lua_State *L, const struct dr_error *e) {
  lua_pushnil(L);
  dr_push_error_text(L, e->kind, 0, e->message, strlen(e->message));
  lua_pushinteger(L, e->code);
  lua_setfield(L, -2, "code");
  return 2;
}
