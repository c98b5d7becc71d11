#include "data/encoding.h"

#include <ctype.h>
#include <string.h>

void dr_push_escaped(lua_State *L, const char *text, size_t len, bool path) {
  static const char hex[] = "0123456789ABCDEF";
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < len; i++) {
    unsigned char c = (unsigned char)text[i];
    if ((c < 128 && isalnum(c)) || (c && strchr("-._~", c)) || (path && c && strchr("/:@", c))) {
      luaL_addchar(&b, (char)c);
    } else {
      luaL_addchar(&b, '%');
      luaL_addchar(&b, hex[c >> 4]);
      luaL_addchar(&b, hex[c & 15]);
    }
  }
  luaL_pushresult(&b);
}

static const char plain_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void dr_push_base64(lua_State *L, const char *data, size_t len, bool url) {
  const char *digits = url ? url_digits : plain_digits;
  const unsigned char *in = (const unsigned char *)data;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < len; i += 3) {
    size_t n = len - i < 3 ? len - i : 3;
    unsigned v = (unsigned)in[i] << 16 | (n > 1 ? (unsigned)in[i + 1] << 8 : 0) | (n > 2 ? in[i + 2] : 0);
    for (size_t k = 0; k < 4; k++) luaL_addchar(&b, k <= n ? digits[v >> (18 - 6 * k) & 63] : '=');
  }
  luaL_pushresult(&b);
}

bool dr_push_unbase64(lua_State *L, const char *text, size_t len) {
  luaL_Buffer b;
  unsigned v = 0, bits = 0;
  while (len && text[len - 1] == '=') len--;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < len; i++) {
    const char *at = text[i] ? strchr(plain_digits, text[i]) : NULL;
    const char *base = plain_digits;
    if (!at) at = text[i] ? strchr(url_digits, text[i]) : NULL, base = url_digits;
    if (!at) {
      luaL_pushresult(&b);
      lua_pop(L, 1);
      return false;
    }
    v = v << 6 | (unsigned)(at - base);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      luaL_addchar(&b, (char)(v >> bits & 255));
    }
  }
  luaL_pushresult(&b);
  return true;
}

static int l_unbase64(lua_State *L) {
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  if (!dr_push_unbase64(L, text, len)) lua_pushnil(L);
  return 1;
}

// dockrun.core.encoding: unbase64(text) -> data; nil if the text is not base64 of either alphabet.
int luaopen_dockrun_core_encoding(lua_State *L) {
  static const luaL_Reg module[] = {{"unbase64", l_unbase64}, {NULL, NULL}};
  luaL_newlib(L, module);
  return 1;
}
