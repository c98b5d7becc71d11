#include "data/json.h"

#include <float.h>
#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "data/buffer.h"
#include "data/error.h"
#include "data/lua_util.h"

static const char ARRAY[] = "dockrun.array";
static const char CODEC;  // registry key: {decode, mark}

enum { MAX_DEPTH = 200, MARK_LEN = 2 + 16 };

// lua-cjson 2.1 reads every number as a double, and an empty list as it reads an empty object. What it cannot say goes
// through it as a string that starts with a mark, and is unquoted afterwards. The mark is random per process, so that
// no text can forge it.
static void decode_push_codec(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &CODEC) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_createtable(L, 0, 2);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "cjson");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");  // a codec of our own: another user's settings do not reach us
  lua_call(L, 0, 1);
  lua_getfield(L, -1, "decode_invalid_numbers");
  lua_pushboolean(L, false);
  lua_call(L, 1, 0);
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

// ---- encoding ----------------------------------------------------------------------------------

static const char TEXT[] = "dockrun.json.text";

// One value on its way to text. `array` is the stack index of the metatable of lists.
struct encoder {
  lua_State *L;
  struct dr_buffer *out;
  int array;
};

static int l_free_text(lua_State *L) {
  dr_buffer_free(luaL_checkudata(L, 1, TEXT));
  return 0;
}

static bool is_array(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return false;
  luaL_getmetatable(L, ARRAY);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same;
}

static void encode_bytes(struct encoder *e, const char *text, size_t len) {
  if (dr_buffer_add(e->out, text, len)) luaL_error(e->L, "cannot encode JSON: out of memory");
}

static void encode_text(struct encoder *e, const char *text, size_t len) {
  static const char hex[] = "0123456789abcdef", names[] = "btnvfr";  // from 8 on; \v has no name in JSON
  const char *end = text + len, *from = text;
  encode_bytes(e, "\"", 1);
  for (const char *at = text; at < end; at++) {
    unsigned char c = (unsigned char)*at;
    if (c >= ' ' && c != '"' && c != '\\' && c != '/' && c != 127) continue;
    char escaped[6] = {'\\', (char)c, '0', '0', hex[c >> 4], hex[c & 15]};
    size_t n = 2;
    if (c >= 8 && c <= 13 && c != 11) {
      escaped[1] = names[c - 8];
    } else if (c < ' ' || c == 127) {
      escaped[1] = 'u';
      n = 6;
    }
    encode_bytes(e, from, at - from);
    encode_bytes(e, escaped, n);
    from = at + 1;
  }
  encode_bytes(e, from, end - from);
  encode_bytes(e, "\"", 1);
}

enum { NUMBER = 40 };  // bytes that are enough for one

// With the fewest digits that give the same number again, at most 17 (IEEE 754, binary64).
static void encode_float(char text[NUMBER], lua_Number n) {
  for (int digits = DBL_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
    snprintf(text, NUMBER, "%.*g", digits, n);
    if (strtod(text, NULL) == n) break;
  }
  char *point = text + strspn(text, "-0123456789eE+");
  if (*point) *point = '.';  // whatever the host's locale has there
}

static void encode_number(struct encoder *e, int idx) {
  char text[NUMBER];
  lua_Number n = lua_tonumber(e->L, idx);
  if (!isfinite(n)) luaL_error(e->L, "cannot encode JSON: %f is no number of JSON", n);
  if (lua_isinteger(e->L, idx))
    snprintf(text, sizeof text, LUA_INTEGER_FMT, (LUAI_UACINT)lua_tointeger(e->L, idx));
  else
    encode_float(text, n);
  encode_bytes(e, text, strlen(text));
}

// The length of a table that is a list: its largest key if all are whole numbers from 1 on. -1 for any other, and for
// an empty one without a mark.
static lua_Integer encode_length(struct encoder *e, int idx) {
  enum { FEW = 10, HOLES = 2 };  // of a longer list, one in so many places must be there
  lua_State *L = e->L;
  lua_Integer most = 0, count = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1) {
      lua_pop(L, 2);
      return -1;
    }
    if (lua_tointeger(L, -2) > most) most = lua_tointeger(L, -2);
    count++;
  }
  if (most > FEW && most / HOLES > count) luaL_error(L, "cannot encode JSON: a list with too many holes");
  if (most || !lua_getmetatable(L, idx)) return most ? most : -1;
  bool marked = lua_rawequal(L, -1, e->array);
  lua_pop(L, 1);
  return marked ? 0 : -1;
}

static void encode_value(struct encoder *e, int depth);

static void encode_object(struct encoder *e, int idx, int depth) {
  lua_State *L = e->L;
  bool first = true;
  encode_bytes(e, "{", 1);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1), first = false) {
    size_t len;
    int type = lua_type(L, -2);
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
      luaL_error(L, "cannot encode JSON: a key is a string or a number, not a %s", lua_typename(L, type));
    if (!first) encode_bytes(e, ",", 1);
    if (type == LUA_TSTRING) {
      const char *key = lua_tolstring(L, -2, &len);
      encode_text(e, key, len);
    } else {
      encode_bytes(e, "\"", 1);
      encode_number(e, -2);
      encode_bytes(e, "\"", 1);
    }
    encode_bytes(e, ":", 1);
    encode_value(e, depth + 1);
  }
  encode_bytes(e, "}", 1);
}

static void encode_table(struct encoder *e, int depth) {
  lua_State *L = e->L;
  int idx = lua_gettop(L);
  if (depth > MAX_DEPTH) luaL_error(L, "cannot encode JSON: nested deeper than %d (or a cycle)", MAX_DEPTH);
  luaL_checkstack(L, 6, "JSON value too deep");
  lua_Integer length = encode_length(e, idx);
  if (length < 0) {
    encode_object(e, idx, depth);
    return;
  }
  encode_bytes(e, "[", 1);
  for (lua_Integer i = 1; i <= length; i++) {
    if (i > 1) encode_bytes(e, ",", 1);
    lua_rawgeti(L, idx, i);
    encode_value(e, depth + 1);
    lua_pop(L, 1);
  }
  encode_bytes(e, "]", 1);
}

// Appends the value at the top, and leaves it there.
static void encode_value(struct encoder *e, int depth) {
  lua_State *L = e->L;
  int type = lua_type(L, -1);
  size_t len;
  const char *text;
  switch (type) {
    case LUA_TNIL:
      encode_bytes(e, "null", 4);
      break;
    case LUA_TBOOLEAN:
      lua_toboolean(L, -1) ? encode_bytes(e, "true", 4) : encode_bytes(e, "false", 5);
      break;
    case LUA_TNUMBER:
      encode_number(e, -1);
      break;
    case LUA_TSTRING:
      text = lua_tolstring(L, -1, &len);
      encode_text(e, text, len);
      break;
    case LUA_TTABLE:
      encode_table(e, depth);
      break;
    default:
      if (type != LUA_TLIGHTUSERDATA || lua_touserdata(L, -1))
        luaL_error(L, "cannot encode JSON: a %s has no form in it", lua_typename(L, type));
      encode_bytes(e, "null", 4);
  }
}

void dr_json_encode(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  int top = lua_gettop(L);
  luaL_checkstack(L, 8, NULL);
  struct dr_buffer *out = lua_newuserdatauv(L, sizeof *out, 0);
  *out = (struct dr_buffer){0};
  dr_set_gc(L, TEXT, l_free_text);
  luaL_getmetatable(L, ARRAY);
  struct encoder e = {L, out, top + 2};
  lua_pushvalue(L, idx);
  encode_value(&e, 0);
  lua_pushlstring(L, dr_buffer_data(out), dr_buffer_len(out));
  dr_buffer_free(out);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
}

// ---- decoding ----------------------------------------------------------------------------------

enum { EXACT_DIGITS = 15 };  // what every double holds

static bool decode_is_digit(char c) { return c >= '0' && c <= '9'; }

static bool decode_is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The end of the empty list that begins here, or NULL.
static const char *decode_past_empty_list(const char *at, const char *end) {
  for (at++; at < end && decode_is_blank(*at);) at++;
  return at < end && *at == ']' ? at + 1 : NULL;
}

// Whether anything in the text may have to be marked: a longer run of digits, of which one is at every sixteenth byte,
// or an empty list.
static bool decode_may_need_marks(const char *text, size_t len) {
  for (size_t i = EXACT_DIGITS; i < len; i += EXACT_DIGITS + 1)
    if (decode_is_digit(text[i])) return true;
  for (const char *at = text, *end = text + len; (at = memchr(at, '[', end - at)); at++)
    if (decode_past_empty_list(at, end)) return true;
  return false;
}

// Whether the digits from `from` on, and what follows them, are a number of JSON (RFC 8259, section 6), its sign aside.
static bool decode_is_number(const char *from, const char *end) {
  const char *at = from;
  while (at < end && decode_is_digit(*at)) at++;
  if (at == from || (*from == '0' && at > from + 1)) return false;
  if (at < end && *at == '.') {
    if (++at == end || !decode_is_digit(*at)) return false;
    while (at < end && decode_is_digit(*at)) at++;
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    if (++at < end && (*at == '+' || *at == '-')) at++;
    if (at == end || !decode_is_digit(*at)) return false;
    while (at < end && decode_is_digit(*at)) at++;
  }
  return at == end;
}

// Adds a marked string in place of the text from `begin` on, and what comes before it.
static void decode_add_marked(luaL_Buffer *b, const char **from, const char *begin, const char *end, const char *mark) {
  luaL_addlstring(b, *from, begin - *from);
  luaL_addchar(b, '"');
  luaL_addlstring(b, mark, MARK_LEN);
  luaL_addlstring(b, begin, *begin == '[' ? 1 : end - begin);
  luaL_addchar(b, '"');
  *from = end;
}

static const char *decode_past_string(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? at + 1 : end;
}

// Pushes the text with every integer that a double might not hold, and every empty list, quoted and marked; with
// `digits`, every other number than a short integer too.
static void decode_push_marked(lua_State *L, const char *text, size_t len, const char *mark, bool digits) {
  const char *end = text + len, *from = text;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (const char *at = text; at < end;) {
    if (*at == '"') {
      at = decode_past_string(at, end);
    } else if (*at == '-' || decode_is_digit(*at)) {
      const char *number = at, *first = at + (*at == '-');
      for (at = first; at < end && decode_is_digit(*at);) at++;
      bool whole = at == end || !strchr(".eE", *at), is_long = whole && at - first > EXACT_DIGITS && *first != '0';
      if (!whole)
        while (at < end && (decode_is_digit(*at) || strchr(".eE+-", *at))) at++;
      if (!is_long && (whole || !digits || !decode_is_number(first, at))) continue;
      decode_add_marked(&b, &from, number, at, mark);
    } else if (*at == '[' && decode_past_empty_list(at, end)) {
      const char *list = at;
      at = decode_past_empty_list(at, end);
      decode_add_marked(&b, &from, list, at, mark);
    } else {
      at++;
    }
  }
  luaL_addlstring(&b, from, end - from);
  luaL_pushresult(&b);
}

// A decimal number without the zeros around its digits: "0.250" is 25 and -2, "1e3" is 1 and 3.
struct decimal {
  char digits[24];
  long power;
};

// False if it has more digits than a double could be written with. Its sign is left out.
static bool decimal_read(struct decimal *d, const char *text) {
  size_t n = 0, zeros = 0;
  long fraction = 0;
  bool point = false;
  for (text += *text == '-'; decode_is_digit(*text) || *text == '.'; text++) {
    point = point || *text == '.';
    if (*text == '.') continue;
    fraction += point;
    if (*text == '0') {
      zeros += n > 0;
      continue;
    }
    if (n + zeros + 2 > sizeof d->digits) return false;
    memset(d->digits + n, '0', zeros);
    n += zeros;
    zeros = 0;
    d->digits[n++] = *text;
  }
  d->digits[n] = '\0';
  d->power = n ? (*text ? strtol(text + 1, NULL, 10) : 0) - fraction + (long)zeros : 0;
  return true;
}

// Pushes the number at idx as an integer and returns true, or returns false if it is no whole number.
static bool decode_push_whole(lua_State *L, int idx) {
  lua_Integer whole;
  lua_Number n = lua_tonumber(L, idx);
  if (!lua_numbertointeger(n, &whole) || (lua_Number)whole != n) return false;
  lua_pushinteger(L, whole);
  return true;
}

// Replaces the number at the top by its text, if Lua's number has other digits.
static void decode_keep_digits(lua_State *L, const char *text) {
  char shortest[NUMBER];
  struct decimal written, kept;
  if (lua_isinteger(L, -1)) return;
  encode_float(shortest, lua_tonumber(L, -1));
  if (decimal_read(&written, text) && decimal_read(&kept, shortest) && written.power == kept.power &&
      !strcmp(written.digits, kept.digits)) {
    if (!decode_push_whole(L, -1)) return;
  } else {
    lua_pushstring(L, text);
  }
  lua_replace(L, -2);
}

// Pushes what takes the place of the scalar at the top, and says true; or false: it may stay.
static bool decode_push_scalar(lua_State *L, const char *mark, bool digits) {
  size_t len;
  if (lua_type(L, -1) == LUA_TNUMBER) return decode_push_whole(L, -1);
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
  if (!text || len <= MARK_LEN || memcmp(text, mark, MARK_LEN)) return false;
  if (text[MARK_LEN] == '[')
    dr_json_push_array(L);
  else if (!lua_stringtonumber(L, text + MARK_LEN))  // an integer, or a float if it is too large for one
    return false;
  else if (digits)
    decode_keep_digits(L, text + MARK_LEN);
  return true;
}

// Makes whole numbers integers, drops null members and marks lists, in place. The value is at the top.
static void decode_unmark(lua_State *L, const char *mark, bool digits) {
  if (!lua_istable(L, -1)) {
    if (decode_push_scalar(L, mark, digits)) lua_replace(L, -2);
    return;
  }
  luaL_checkstack(L, 6, "JSON value too deep");
  int table = lua_gettop(L);
  bool list = lua_rawlen(L, table) > 0;
  for (lua_pushnil(L); lua_next(L, table); lua_settop(L, table + 1)) {
    if (lua_istable(L, -1)) {
      decode_unmark(L, mark, digits);
    } else if (lua_islightuserdata(L, -1) && !list) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, table);
    } else if (decode_push_scalar(L, mark, digits)) {
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

// lua-cjson takes a NUL byte, which no JSON has, for the end of the text, and says nothing of what follows.
static int decode_fail_at_nul(lua_State *L, const char *text, const char *nul) {
  static const char WHY[] = "found a NUL byte";
  lua_pushnil(L);
  dr_push_error_text(L, "invalid", 0, WHY, sizeof WHY - 1);
  lua_pushinteger(L, nul - text + 1);
  lua_setfield(L, -2, "offset");
  return 2;
}

static int decode_text(lua_State *L, const char *text, size_t len, bool digits) {
  const char *nul = memchr(text, 0, len);
  if (nul) return decode_fail_at_nul(L, text, nul);
  decode_push_codec(L);
  int codec = lua_gettop(L), status = LUA_ERRRUN;
  text = lua_pushlstring(L, text, len);
  lua_getfield(L, codec, "mark");
  const char *mark = lua_tostring(L, -1);
  if (digits || decode_may_need_marks(text, len)) {
    decode_push_marked(L, text, len, mark, digits);
    status = decode_top(L, codec);
  }
  if (status != LUA_OK) {  // the text must be unchanged, because the error names a place in it
    lua_pushvalue(L, codec + 1);
    status = decode_top(L, codec);
  }
  if (status == LUA_OK) {
    decode_unmark(L, mark, digits);
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

int dr_json_decode(lua_State *L, const char *text, size_t len) { return decode_text(L, text, len, false); }

static int l_encode(lua_State *L) {
  luaL_checkany(L, 1);
  dr_json_encode(L, 1);
  return 1;
}

// json.number(text) -> the number, or the text itself if Lua's number has other digits; nil if it is no number
static int l_number(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  if (!lua_stringtonumber(L, text)) return 0;
  decode_keep_digits(L, text);
  return 1;
}

// json.decode(text, [keep_digits]) -> value | nil, err (kind "invalid", with `offset`)
// keep_digits: a number of which Lua has other digits is its text: "18446744073709551615".
static int l_decode(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  return decode_text(L, text, len, lua_toboolean(L, 2));
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
  static const luaL_Reg module[] = {{"encode", l_encode}, {"decode", l_decode},     {"number", l_number},
                                    {"array", l_array},   {"is_array", l_is_array}, {NULL, NULL}};
  if (luaL_newmetatable(L, ARRAY)) {
    lua_pushliteral(L, "dockrun.array");
    lua_setfield(L, -2, "__name");
  }
  luaL_newlib(L, module);
  lua_pushlightuserdata(L, NULL);  // what cjson uses; only lists can hold it
  lua_setfield(L, -2, "null");
  return 1;
}
