// See patterns.h. The rules are those of §6.4.1 of the Lua 5.4 manual, and the errors are worded as Lua's own.
#include "runtime/patterns.h"

#include <ctype.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "runtime/budget.h"

enum {
  CAPTURES = 32,
  DEPTH = 200,   // of calls of match_rest within each other
  SLICE = 1000,  // steps between two looks at limits and signals
  SPREAD = 32,   // bytes that take as long to compare as a step
  ESCAPE = '%',
};
enum { OPEN = -1, POSITION = -2 };  // in place of the length of a capture

struct capture {
  const char *start;
  ptrdiff_t len;
};

struct match {
  lua_State *L;
  const char *text, *text_end;
  const char *pattern, *pattern_end;  // without its anchor
  bool anchored;
  int steps, depth, captures;
  struct capture capture[CAPTURES];
};

static const char *match_rest(struct match *m, const char *s, const char *p);

// What takes so many steps more, or compares bytes.
static void match_steps(struct match *m, size_t steps) {
  m->steps += steps < SLICE ? (int)steps : SLICE;
  if (m->steps < SLICE) return;
  m->steps = 0;
  dr_count_steps(m->L, steps < SLICE ? SLICE : (lua_Integer)steps);
}

// ---- one character -----------------------------------------------------------------------------

// The end of the item that begins at p: a character, a class or a set.
static const char *item_end(struct match *m, const char *p) {
  if (*p == ESCAPE) {
    if (p + 1 == m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 2;
  }
  if (*p != '[') return p + 1;
  p++;
  if (*p == '^') p++;
  do {  // a `]` at once is a member
    if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
    if (*p == ESCAPE && p + 1 < m->pattern_end) p++;
    p++;
  } while (p == m->pattern_end || *p != ']');
  return p + 1;
}

static bool class_has(int c, int class) {
  bool has;
  switch (tolower(class)) {
    case 'a':
      has = isalpha(c);
      break;
    case 'c':
      has = iscntrl(c);
      break;
    case 'd':
      has = isdigit(c);
      break;
    case 'g':
      has = isgraph(c);
      break;
    case 'l':
      has = islower(c);
      break;
    case 'p':
      has = ispunct(c);
      break;
    case 's':
      has = isspace(c);
      break;
    case 'u':
      has = isupper(c);
      break;
    case 'w':
      has = isalnum(c);
      break;
    case 'x':
      has = isxdigit(c);
      break;
    case 'z':  // deprecated since 5.2, and still in 5.4
      has = c == 0;
      break;
    default:
      return class == c;
  }
  return isupper(class) ? !has : has;
}

// p is at the `[`, end behind the `]`.
static bool set_has(int c, const char *p, const char *end) {
  const unsigned char *at = (const unsigned char *)p + 1, *last = (const unsigned char *)end - 1;
  bool has = true;
  if (*at == '^') has = false, at++;
  for (; at < last; at++) {
    if (*at == ESCAPE) {
      at++;
      if (class_has(c, *at)) return has;
    } else if (at + 2 < last && at[1] == '-') {
      if (at[0] <= c && c <= at[2]) return has;
      at += 2;
    } else if (*at == c) {
      return has;
    }
  }
  return !has;
}

static bool item_has(int c, const char *p, const char *end) {
  switch (*p) {
    case '.':
      return true;
    case ESCAPE:
      return class_has(c, (unsigned char)p[1]);
    case '[':
      return set_has(c, p, end);
    default:
      return (unsigned char)*p == c;
  }
}

static bool item_is_at(struct match *m, const char *s, const char *p, const char *end) {
  match_steps(m, 1 + (size_t)(end - p) / SPREAD);
  return s < m->text_end && item_has((unsigned char)*s, p, end);
}

// ---- what an item may be followed by -----------------------------------------------------------

static const char *match_most(struct match *m, const char *s, const char *p, const char *end, ptrdiff_t least) {
  ptrdiff_t n = 0;
  while (item_is_at(m, s + n, p, end)) n++;
  for (; n >= least; n--) {
    const char *found = match_rest(m, s + n, end + 1);
    if (found) return found;
  }
  return NULL;
}

static const char *match_fewest(struct match *m, const char *s, const char *p, const char *end) {
  for (;; s++) {
    const char *found = match_rest(m, s, end + 1);
    if (found) return found;
    if (!item_is_at(m, s, p, end)) return NULL;
  }
}

// ---- captures ----------------------------------------------------------------------------------

static const char *match_open(struct match *m, const char *s, const char *p, ptrdiff_t len) {
  if (m->captures >= CAPTURES) luaL_error(m->L, "too many captures");
  m->capture[m->captures++] = (struct capture){s, len};
  const char *found = match_rest(m, s, p);
  if (!found) m->captures--;
  return found;
}

static const char *match_close(struct match *m, const char *s, const char *p) {
  int i = m->captures - 1;
  while (i >= 0 && m->capture[i].len != OPEN) i--;
  if (i < 0) luaL_error(m->L, "invalid pattern capture");
  m->capture[i].len = s - m->capture[i].start;
  const char *found = match_rest(m, s, p);
  if (!found) m->capture[i].len = OPEN;
  return found;
}

// The end of what a capture's text matches at s.
static const char *match_again(struct match *m, const char *s, int digit) {
  int i = digit - '1';
  if (i < 0 || i >= m->captures || m->capture[i].len == OPEN) luaL_error(m->L, "invalid capture index %%%d", i + 1);
  if (m->capture[i].len < 0) return NULL;  // Lua takes a position for a text that is longer than any
  size_t len = (size_t)m->capture[i].len;
  match_steps(m, len / SPREAD);
  return (size_t)(m->text_end - s) >= len && !memcmp(m->capture[i].start, s, len) ? s + len : NULL;
}

static const char *match_balance(struct match *m, const char *s, const char *p) {
  if (p + 1 >= m->pattern_end) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
  if (s == m->text_end || *s != p[0]) return NULL;
  for (ptrdiff_t depth = 1; ++s < m->text_end;) {
    match_steps(m, 1);
    if (*s == p[1]) {
      if (--depth == 0) return s + 1;
    } else if (*s == p[0]) {
      depth++;
    }
  }
  return NULL;
}

static bool match_frontier(struct match *m, const char *s, const char *p, const char *end) {
  int before = s == m->text ? 0 : (unsigned char)s[-1], here = s == m->text_end ? 0 : (unsigned char)*s;
  match_steps(m, (size_t)(end - p) / SPREAD);
  return !set_has(before, p, end) && set_has(here, p, end);
}

// ---- a pattern ---------------------------------------------------------------------------------

// What begins with % and is no class. False: it is one. *s: NULL if it does not match.
static bool match_special(struct match *m, const char **s, const char **p) {
  const char *at = *p + 1;
  if (*p + 1 >= m->pattern_end) return false;
  if (*at == 'b') {
    *s = match_balance(m, *s, at + 1);
    *p = at + 3;
  } else if (*at == 'f') {
    if (++at >= m->pattern_end || *at != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
    const char *end = item_end(m, at);
    if (!match_frontier(m, *s, at, end)) *s = NULL;
    *p = end;
  } else if (isdigit((unsigned char)*at)) {
    *s = match_again(m, *s, *at);
    *p = at + 1;
  } else {
    return false;
  }
  return true;
}

// The end of a match of the pattern from p on that begins at s, or NULL.
static const char *match_items(struct match *m, const char *s, const char *p) {
  while (p < m->pattern_end) {
    match_steps(m, 1);
    if (*p == '(') return p[1] == ')' ? match_open(m, s, p + 2, POSITION) : match_open(m, s, p + 1, OPEN);
    if (*p == ')') return match_close(m, s, p + 1);
    if (*p == '$' && p + 1 == m->pattern_end) return s == m->text_end ? s : NULL;
    if (*p == ESCAPE && match_special(m, &s, &p)) {
      if (!s) return NULL;
      continue;
    }
    const char *end = item_end(m, p);
    char how = end < m->pattern_end ? *end : '\0';
    if (how == '*' || how == '+') return match_most(m, s, p, end, how == '+');
    if (how == '-') return match_fewest(m, s, p, end);
    bool is_at = item_is_at(m, s, p, end);
    if (how == '?') {
      const char *found = is_at ? match_rest(m, s + 1, end + 1) : NULL;
      if (found) return found;
      p = end + 1;
    } else if (is_at) {
      s++;
      p = end;
    } else {
      return NULL;
    }
  }
  return s;
}

static const char *match_rest(struct match *m, const char *s, const char *p) {
  if (m->depth++ >= DEPTH) luaL_error(m->L, "pattern too complex");
  const char *found = match_items(m, s, p);
  m->depth--;
  return found;
}

static void match_prepare(struct match *m, lua_State *L, bool anchors) {
  size_t len, pattern_len;
  const char *text = luaL_checklstring(L, 1, &len), *pattern = luaL_checklstring(L, 2, &pattern_len);
  m->L = L;
  m->text = text;
  m->text_end = text + len;
  m->anchored = anchors && *pattern == '^';
  m->pattern = pattern + m->anchored;
  m->pattern_end = pattern + pattern_len;
  m->steps = 0;
}

static const char *match_at(struct match *m, const char *s) {
  m->captures = m->depth = 0;
  return match_rest(m, s, m->pattern);
}

// The first match at or after *s, which is set to its place, or NULL.
static const char *match_first(struct match *m, const char **s) {
  for (;; ++*s) {
    const char *end = match_at(m, *s);
    if (end || m->anchored || *s >= m->text_end) return end;
  }
}

static void push_capture(const struct match *m, int i) {
  const struct capture *c = &m->capture[i];
  if (c->len == OPEN) luaL_error(m->L, "unfinished capture");
  if (c->len == POSITION)
    lua_pushinteger(m->L, c->start - m->text + 1);
  else
    lua_pushlstring(m->L, c->start, (size_t)c->len);
}

// Every capture; without one, what was matched, if there is a start.
static int push_captures(const struct match *m, const char *start, const char *end) {
  if (!m->captures && start) return lua_pushlstring(m->L, start, (size_t)(end - start)), 1;
  luaL_checkstack(m->L, m->captures, "too many captures");
  for (int i = 0; i < m->captures; i++) push_capture(m, i);
  return m->captures;
}

// The offset at which argument idx lets a search begin: one above the length is the end, and more is none.
static size_t check_init(lua_State *L, int idx, size_t len) {
  lua_Integer init = luaL_optinteger(L, idx, 1);
  if (init > 0) return (size_t)init - 1;
  if (init == 0 || init < -(lua_Integer)len) return 0;
  return len + (size_t)init;
}

// ---- the functions -----------------------------------------------------------------------------

// The first place of a text in a longer one.
static const char *match_plain(struct match *m, const char *s, const char *wanted, size_t len) {
  if (!len) return s;
  while ((size_t)(m->text_end - s) >= len) {
    const char *at = memchr(s, *wanted, (size_t)(m->text_end - s) - len + 1);
    match_steps(m, 1 + (size_t)((at ? at : m->text_end) - s) / SPREAD + (at ? len / SPREAD : 0));
    if (!at) return NULL;
    if (!memcmp(at, wanted, len)) return at;
    s = at + 1;
  }
  return NULL;
}

static bool pattern_is_plain(const struct match *m) {
  for (const char *p = m->pattern - m->anchored; p < m->pattern_end; p++)
    if (*p && strchr("^$*+?.([%-", *p)) return false;
  return true;
}

static int match_search(lua_State *L, bool find) {
  struct match m;
  match_prepare(&m, L, true);
  size_t init = check_init(L, 3, (size_t)(m.text_end - m.text));
  if (init > (size_t)(m.text_end - m.text)) return lua_pushnil(L), 1;
  const char *s = m.text + init, *end;
  if (find && (lua_toboolean(L, 4) || pattern_is_plain(&m))) {
    size_t len = (size_t)(m.pattern_end - m.pattern) + m.anchored;
    s = match_plain(&m, s, m.pattern_end - len, len);
    end = s ? s + len : NULL;
    m.captures = 0;
  } else {
    end = match_first(&m, &s);
  }
  if (!end) return lua_pushnil(L), 1;
  if (!find) return push_captures(&m, s, end);
  lua_pushinteger(L, s - m.text + 1);
  lua_pushinteger(L, end - m.text);
  return 2 + push_captures(&m, NULL, NULL);
}

static int l_find(lua_State *L) { return match_search(L, true); }
static int l_match(lua_State *L) { return match_search(L, false); }

// The state of an iteration is in upvalues: text, pattern, the next place, the end of the match before (-1: none).
static int gmatch_next(lua_State *L) {
  struct match m;
  lua_settop(L, 0);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, lua_upvalueindex(2));
  match_prepare(&m, L, false);
  lua_Integer place = lua_tointeger(L, lua_upvalueindex(3)), before = lua_tointeger(L, lua_upvalueindex(4));
  if (place > m.text_end - m.text) return 0;
  for (const char *s = m.text + place;; s++) {
    const char *end = match_first(&m, &s);
    if (!end) break;
    if (end - m.text != before) {
      lua_pushinteger(L, end - m.text);
      lua_copy(L, -1, lua_upvalueindex(3));
      lua_replace(L, lua_upvalueindex(4));
      return push_captures(&m, s, end);
    }
    if (s >= m.text_end) break;
  }
  return 0;
}

static int l_gmatch(lua_State *L) {
  size_t len;
  luaL_checklstring(L, 1, &len);
  luaL_checkstring(L, 2);
  size_t init = check_init(L, 3, len);
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)(init > len ? len + 1 : init));
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, gmatch_next, 4);
  return 1;
}

// Adds a replacement's text, in which %0 to %9 are what was captured.
static void add_template(struct match *m, luaL_Buffer *b, const char *s, const char *end) {
  size_t len;
  const char *text = lua_tolstring(m->L, 3, &len), *last = text + len, *at;
  for (; (at = memchr(text, ESCAPE, (size_t)(last - text))); text = at + 1) {
    luaL_addlstring(b, text, (size_t)(at - text));
    at++;
    int digit = (unsigned char)*at, i = digit - '1';
    if (digit == ESCAPE) {
      luaL_addchar(b, ESCAPE);
    } else if (digit == '0' || (digit == '1' && !m->captures)) {
      luaL_addlstring(b, s, (size_t)(end - s));
    } else if (!isdigit(digit)) {
      luaL_error(m->L, "invalid use of '%c' in replacement string", ESCAPE);
    } else {
      if (i >= m->captures) luaL_error(m->L, "invalid capture index %%%d", i + 1);
      push_capture(m, i);
      luaL_tolstring(m->L, -1, NULL);  // a position is a number
      lua_remove(m->L, -2);
      luaL_addvalue(b);
    }
  }
  luaL_addlstring(b, text, (size_t)(last - text));
}

// Adds the replacement of a match; false: the match itself.
static bool add_replacement(struct match *m, luaL_Buffer *b, const char *s, const char *end, int type) {
  lua_State *L = m->L;
  if (type == LUA_TFUNCTION) {
    lua_pushvalue(L, 3);
    lua_call(L, push_captures(m, s, end), 1);
  } else if (type == LUA_TTABLE) {
    if (m->captures)
      push_capture(m, 0);
    else
      lua_pushlstring(L, s, (size_t)(end - s));
    lua_gettable(L, 3);
  } else {
    add_template(m, b, s, end);
    return true;
  }
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    luaL_addlstring(b, s, (size_t)(end - s));
    return false;
  }
  if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  luaL_addvalue(b);
  return true;
}

static int l_gsub(lua_State *L) {
  struct match m;
  match_prepare(&m, L, true);
  const char *s = m.text, *before = NULL;
  int type = lua_type(L, 3);
  lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)(m.text_end - m.text) + 1), count = 0;
  bool known = type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE;
  if (!known) return luaL_typeerror(L, 3, "string/function/table");
  bool changed = false;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  while (count < most) {
    const char *end = match_at(&m, s);
    if (end && end != before) {
      count++;
      changed = add_replacement(&m, &b, s, end, type) || changed;
      s = before = end;
    } else if (s < m.text_end) {
      luaL_addchar(&b, *s++);
    } else {
      break;
    }
    if (m.anchored) break;
  }
  if (changed) {
    luaL_addlstring(&b, s, (size_t)(m.text_end - s));
    luaL_pushresult(&b);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, count);
  return 2;
}

// Lua's own string.rep, but that it takes no time to repeat nothing.
static int l_rep(lua_State *L) {
  size_t len, separator;
  luaL_checklstring(L, 1, &len);
  luaL_checkinteger(L, 2);
  luaL_optlstring(L, 3, "", &separator);
  if (len || separator) return lua_tocfunction(L, lua_upvalueindex(1))(L);
  lua_pushliteral(L, "");
  return 1;
}

static bool is_library(lua_State *L, const char *name) {
  bool is = lua_getfield(L, -1, name) == LUA_TFUNCTION && lua_iscfunction(L, -1) && !lua_getupvalue(L, -1, 1);
  if (!is) lua_settop(L, -2);
  return is;
}

void dr_patch_patterns(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"find", l_find}, {"gmatch", l_gmatch}, {"gsub", l_gsub}, {"match", l_match}, {NULL, NULL}};
  int top = lua_gettop(L);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_STRLIBNAME) == LUA_TTABLE) {
    for (const luaL_Reg *f = functions; f->name; f++) {
      if (!is_library(L, f->name)) continue;
      lua_pop(L, 1);
      lua_pushcfunction(L, f->func);
      lua_setfield(L, -2, f->name);
    }
    if (is_library(L, "rep")) {
      lua_pushcclosure(L, l_rep, 1);
      lua_setfield(L, -2, "rep");
    }
  }
  lua_settop(L, top);
}
