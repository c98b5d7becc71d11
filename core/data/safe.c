#include "data/safe.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>

// Decodes one character of UTF-8 (RFC 3629); returns its length, or 0 if the bytes are invalid.
static size_t safe_decode(const unsigned char *s, size_t len, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t n = *s < 0x80 ? 1 : *s < 0xc2 ? 0 : *s < 0xe0 ? 2 : *s < 0xf0 ? 3 : *s < 0xf5 ? 4 : 0;
  if (!n || n > len) return 0;
  *code = n == 1 ? *s : *s & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    *code = *code << 6 | (s[i] & 0x3f);
  }
  bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
  return *code < least[n] || *code > 0x10ffff || surrogate ? 0 : n;
}

// What a terminal acts on, or what makes text read as another than it is.
static bool safe_is_active(uint32_t code) {
  static const uint32_t ranges[][2] = {
      {0x00, 0x1f},     {0x7f, 0x9f},                          // control characters
      {0x061c, 0x061c}, {0x200e, 0x200f},                      // marks of direction (Unicode UAX #9)
      {0x202a, 0x202e}, {0x2066, 0x2069}, {0x2028, 0x2029},    // line and paragraph separators
      {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},  // tags: not shown at all
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (code >= ranges[i][0] && code <= ranges[i][1]) return true;
  return false;
}

void dr_push_safe(lua_State *L, const char *text, size_t len, enum dr_safe how) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t at = 0, n; at < len; at += n ? n : 1) {
    uint32_t code = 0;
    char escape[16];
    n = safe_decode((const unsigned char *)text + at, len - at, &code);
    bool stays = n && (!safe_is_active(code) || (how != DR_SAFE_LINE && (code == '\n' || code == '\t')));
    if (stays) {
      luaL_addlstring(&b, text + at, n);
      continue;
    }
    if (how == DR_SAFE_STRIP) {
      if (!n) luaL_addstring(&b, "\xef\xbf\xbd");
      continue;
    }
    if (n < 2)
      snprintf(escape, sizeof escape, "\\x%02x", (unsigned char)text[at]);
    else
      snprintf(escape, sizeof escape, "\\u{%x}", (unsigned)code);
    luaL_addstring(&b, escape);
  }
  luaL_pushresult(&b);
}
