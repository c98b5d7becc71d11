#include "json.h"

#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "error.h"
#include "runtime.h"

static const char ARRAY[] = "dockrun.array";
static const char CODEC;  // registry key: {encode, decode, mark}

enum { MAX_DEPTH = 200, MARK_LEN = 2 + 16 };

// lua-cjson 2.1 writes numbers by %.14g and every empty table as {}, and reads every number as a double. What it cannot
// say goes through it as a string that starts with a mark, and is unquoted afterwards. The mark is random per process,
// so that no text can forge it.
static void push_codec(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &CODEC) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_createtable(L, 0, 3);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "cjson");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");  // a codec of our own: another user's settings do not reach us
  lua_call(L, 0, 1);
  lua_getfield(L, -1, "decode_invalid_numbers");
  lua_pushboolean(L, false);
  lua_call(L, 1, 0);
  lua_getfield(L, -1, "encode");
  lua_setfield(L, -4, "encode");
  lua_getfield(L, -1, "decode");
  lua_setfield(L, -4, "decode");
  lua_pop(L, 2);
  unsigned long long nonce = 0;
  char mark[MARK_LEN + 1];
  if (getrandom(&nonce, sizeof nonce, 0) != sizeof nonce) luaL_error(L, "getrandom failed");
  snprintf(mark, sizeof mark, "r:%016llx", nonce);
  lua_pushlstring(L, mark, MARK_LEN);
  lua_setfield(L, -2, "mark");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &CODEC);
}

static bool is_array(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  luaL_getmetatable(L, ARRAY);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

// An integer with more digits than %.14g writes.
static bool is_long(lua_State *L, int idx) {
  const lua_Integer longest = 99999999999999;
  return lua_isinteger(L, idx) && (lua_tointeger(L, idx) > longest || lua_tointeger(L, idx) < -longest);
}

static bool needs_copy(lua_State *L, int idx, int depth);

// Pushes the value at idx in the form that cjson writes as we want it.
static void push_encodable(lua_State *L, int idx, const char *mark, int depth) {
  idx = lua_absindex(L, idx);
  luaL_checkstack(L, 6, "JSON value too deep");
  if (is_long(L, idx)) {
    lua_pushfstring(L, "%s%I", mark, (LUAI_UACINT)lua_tointeger(L, idx));
  } else if (!lua_istable(L, idx) || !needs_copy(L, idx, depth)) {
    lua_pushvalue(L, idx);
  } else if (is_array(L, idx) && lua_rawlen(L, idx) == 0) {
    lua_pushfstring(L, "%s[]", mark);
  } else {
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
      lua_pushvalue(L, -2);
      push_encodable(L, -2, mark, depth + 1);
      lua_rawset(L, -5);
    }
  }
}

// Whether a table holds anything that cjson would write wrong, at any depth.
static bool needs_copy(lua_State *L, int idx, int depth) {
  if (depth > MAX_DEPTH) luaL_error(L, "cannot encode JSON: nested deeper than %d (or a cycle)", MAX_DEPTH);
  luaL_checkstack(L, 4, "JSON value too deep");
  idx = lua_absindex(L, idx);
  if (is_array(L, idx) && lua_rawlen(L, idx) == 0) return true;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    bool hit = is_long(L, -1) || (lua_istable(L, -1) && needs_copy(L, -1, depth + 1));
    if (hit) {
      lua_pop(L, 2);
      return true;
    }
  }
  return false;
}

// Replaces the text at the top: every "<mark>raw" loses its quotes and its mark.
static void unquote_marked(lua_State *L, const char *mark) {
  size_t len;
  const char *text = lua_tolstring(L, -1, &len), *end = text + len, *hit;
  char quoted[MARK_LEN + 2];
  snprintf(quoted, sizeof quoted, "\"%s", mark);
  if (!memmem(text, len, quoted, MARK_LEN + 1)) return;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  while ((hit = memmem(text, end - text, quoted, MARK_LEN + 1))) {
    luaL_addlstring(&b, text, hit - text);
    text = hit + MARK_LEN + 1;
    const char *close = memchr(text, '"', end - text);
    luaL_addlstring(&b, text, close - text);
    text = close + 1;
  }
  luaL_addlstring(&b, text, end - text);
  luaL_pushresult(&b);
  lua_remove(L, -2);
}

void dr_json_encode(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  push_codec(L);
  int codec = lua_gettop(L);
  lua_getfield(L, codec, "mark");
  const char *mark = lua_tostring(L, -1);
  lua_getfield(L, codec, "encode");
  push_encodable(L, idx, mark, 0);
  lua_call(L, 1, 1);
  unquote_marked(L, mark);
  lua_replace(L, codec);
  lua_settop(L, codec);
}

// ---- decoding ----------------------------------------------------------------------------------

enum { EXACT_DIGITS = 15 };  // what every double holds

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Whether a longer run of digits is anywhere: then one is at every sixteenth byte.
static bool may_be_inexact(const char *text, size_t len) {
  for (size_t i = EXACT_DIGITS; i < len; i += EXACT_DIGITS + 1)
    if (is_digit(text[i])) return true;
  return false;
}

static const char *past_string(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? at + 1 : end;
}

// Pushes the text with every integer that a double might not hold quoted and marked.
static void push_quoted(lua_State *L, const char *text, size_t len, const char *mark) {
  const char *end = text + len, *from = text;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (const char *at = text; at < end;) {
    if (*at == '"') {
      at = past_string(at, end);
    } else if (*at == '-' || is_digit(*at)) {
      const char *number = at, *digits = at + (*at == '-');
      for (at = digits; at < end && is_digit(*at);) at++;
      bool whole = at == end || !strchr(".eE", *at);
      if (!whole || at - digits <= EXACT_DIGITS || *digits == '0') {
        while (at < end && (is_digit(*at) || strchr(".eE+-", *at))) at++;
        continue;
      }
      luaL_addlstring(&b, from, number - from);
      luaL_addchar(&b, '"');
      luaL_addlstring(&b, mark, MARK_LEN);
      luaL_addlstring(&b, number, at - number);
      luaL_addchar(&b, '"');
      from = at;
    } else {
      at++;
    }
  }
  luaL_addlstring(&b, from, end - from);
  luaL_pushresult(&b);
}

// Pushes what takes the place of the scalar at the top, and says true; or false: it may stay.
static bool push_settled(lua_State *L, const char *mark) {
  size_t len;
  lua_Integer whole;
  if (lua_type(L, -1) == LUA_TNUMBER) {
    if (!lua_numbertointeger(lua_tonumber(L, -1), &whole) || (lua_Number)whole != lua_tonumber(L, -1)) return false;
    lua_pushinteger(L, whole);
    return true;
  }
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
  if (!text || len <= MARK_LEN || memcmp(text, mark, MARK_LEN)) return false;
  if (!lua_stringtonumber(L, text + MARK_LEN)) return false;  // an integer, or a float where it is too large for one
  return true;
}

// Makes whole numbers integers, drops null members and marks lists, in place. The value is at the top.
static void settle(lua_State *L, const char *mark) {
  if (!lua_istable(L, -1)) {
    if (push_settled(L, mark)) lua_replace(L, -2);
    return;
  }
  luaL_checkstack(L, 6, "JSON value too deep");
  int table = lua_gettop(L);
  bool list = lua_rawlen(L, table) > 0;
  for (lua_pushnil(L); lua_next(L, table); lua_settop(L, table + 1)) {
    if (lua_istable(L, -1)) {
      settle(L, mark);
    } else if (lua_islightuserdata(L, -1) && !list) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, table);
    } else if (push_settled(L, mark)) {
      lua_pushvalue(L, -3);
      lua_insert(L, -2);
      lua_rawset(L, table);
    }
  }
  if (list) luaL_setmetatable(L, ARRAY);
}

// Pushes the value of the text at the top, or the error, in its place.
static int decode_top(lua_State *L, int codec) {
  lua_getfield(L, codec, "decode");
  lua_insert(L, -2);
  return dr_protected(L, 1, 1);
}

int dr_json_decode(lua_State *L, const char *text, size_t len) {
  push_codec(L);
  int codec = lua_gettop(L), status = LUA_ERRRUN;
  text = lua_pushlstring(L, text, len);
  lua_getfield(L, codec, "mark");
  const char *mark = lua_tostring(L, -1);
  if (may_be_inexact(text, len)) {
    push_quoted(L, text, len, mark);
    status = decode_top(L, codec);
  }
  if (status != LUA_OK) {  // as it is: the place in an error is for those who have that text
    lua_pushvalue(L, codec + 1);
    status = decode_top(L, codec);
  }
  if (status == LUA_OK) {
    settle(L, mark);
    lua_replace(L, codec);
    lua_settop(L, codec);
    return 1;
  }
  size_t why_len;
  const char *why = luaL_tolstring(L, -1, &why_len), *at = strstr(why, "at character ");
  lua_pushnil(L);
  lua_replace(L, codec);
  dr_push_error_text(L, "invalid", 0, why, why_len);
  if (at) {
    lua_pushinteger(L, strtoll(at + strlen("at character "), NULL, 10));
    lua_setfield(L, -2, "offset");
  }
  lua_replace(L, codec + 1);
  lua_settop(L, codec + 1);
  return 2;
}

static int l_encode(lua_State *L) {
  luaL_checkany(L, 1);
  dr_json_encode(L, 1);
  return 1;
}

static int l_decode(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  return dr_json_decode(L, text, len);
}

void dr_json_push_array(lua_State *L) {
  lua_newtable(L);
  luaL_setmetatable(L, ARRAY);
}

// json.array([list]): marks a list, so that an empty one is written as [] and not as {}.
static int l_array(lua_State *L) {
  if (lua_isnoneornil(L, 1)) {
    lua_settop(L, 0);
    lua_newtable(L);
  }
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_setmetatable(L, ARRAY);
  return 1;
}

static int l_is_array(lua_State *L) {
  lua_pushboolean(L, is_array(L, 1));
  return 1;
}

int luaopen_dockrun_core_json(lua_State *L) {
  static const luaL_Reg module[] = {
      {"encode", l_encode}, {"decode", l_decode}, {"array", l_array}, {"is_array", l_is_array}, {NULL, NULL}};
  if (luaL_newmetatable(L, ARRAY)) {
    lua_pushliteral(L, "dockrun.array");
    lua_setfield(L, -2, "__name");
  }
  luaL_newlib(L, module);
  lua_pushlightuserdata(L, NULL);  // what cjson uses; only lists can hold it
  lua_setfield(L, -2, "null");
  return 1;
}
