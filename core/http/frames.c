#include "http/frames.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

const char *const dr_frame_streams[] = {"stdin", "stdout", "stderr", "error"};

enum { HEADER = 8, MAX_PIECE = 1024 * 1024 };

int64_t dr_frame_next(struct dr_frames *f, const char *data, size_t len, const char **piece, size_t *piece_len,
                      struct dr_error *e) {
  size_t used = 0;
  while (f->left == 0) {  // an empty frame has no piece
    const unsigned char *h = (const unsigned char *)data + used;
    if (len - used < HEADER) return 0;
    if (h[0] > 3 || h[1] || h[2] || h[3]) {
      dr_fail(e, "protocol", EPROTO,
              "not a log frame (it starts with %02x %02x %02x %02x): the container may have a TTY; pass tty = true",
              h[0], h[1], h[2], h[3]);
      return -EPROTO;
    }
    f->stream = h[0];
    f->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
    used += HEADER;
    if (f->left == 0 && used == len) return (int64_t)used;  // *piece_len stays 0
  }
  size_t n = len - used;
  if (n > f->left) n = f->left;
  if (n > MAX_PIECE) n = MAX_PIECE;
  *piece = data + used;
  *piece_len = n;
  f->left -= (uint32_t)n;
  return (int64_t)(used + n);
}

int64_t dr_line_next(const char *data, size_t len, const char **line, size_t *line_len, struct dr_error *e) {
  size_t at = 0;
  while (at < len) {
    const char *end = memchr(data + at, '\n', len - at);
    if (!end) break;
    size_t n = end - (data + at), next = at + n + 1;
    if (n && data[at + n - 1] == '\r') n--;
    if (n) {
      *line = data + at;
      *line_len = n;
      return (int64_t)next;
    }
    at = next;
  }
  if (len - at <= DR_MAX_LINE) return 0;
  dr_fail(e, "protocol", EPROTO, "a line of more than %d MiB", DR_MAX_LINE >> 20);
  return -EPROTO;
}

// ---- the border --------------------------------------------------------------------------------

static const char DECODER[] = "dockrun.decoder";

struct decoder {
  bool lines;
  struct dr_frames frames;
  struct dr_error error;  // kind NULL: none
};

static int64_t decoder_take(struct decoder *d, const char *data, size_t len, const char **item, size_t *n,
                            struct dr_error *e) {
  return d->lines ? dr_line_next(data, len, item, n, e) : dr_frame_next(&d->frames, data, len, item, n, e);
}

// frames.decoder("frames" | "lines") -> decoder
static int l_decoder(lua_State *L) {
  static const char *const kinds[] = {"frames", "lines", NULL};
  int kind = luaL_checkoption(L, 1, NULL, kinds);
  struct decoder *d = lua_newuserdatauv(L, sizeof *d, 1);
  *d = (struct decoder){.lines = kind == 1};
  luaL_setmetatable(L, DECODER);
  lua_pushliteral(L, "");
  lua_setiuservalue(L, -2, 1);
  return 1;
}

// decoder:feed(bytes) -> list of lines, or of {stream name, bytes} | nil, err. What is incomplete is kept for later.
// What came before a fault is given first, the error by the next feed, and from then on.
static int l_feed(lua_State *L) {
  struct decoder *d = luaL_checkudata(L, 1, DECODER);
  luaL_checkstring(L, 2);
  lua_settop(L, 2);
  if (d->error.kind) return dr_return_error(L, &d->error);
  lua_getiuservalue(L, 1, 1);
  lua_insert(L, 2);
  lua_concat(L, 2);
  size_t len, at = 0, n = 0;
  const char *data = lua_tolstring(L, 2, &len), *item = NULL;
  lua_Integer count = 0;
  lua_newtable(L);
  for (int64_t used; n = 0, (used = decoder_take(d, data + at, len - at, &item, &n, &d->error)) > 0;
       at += (size_t)used) {
    if (!n) continue;
    if (!d->lines) {
      lua_createtable(L, 2, 0);
      lua_pushstring(L, dr_frame_streams[d->frames.stream]);
      lua_rawseti(L, -2, 1);
    }
    lua_pushlstring(L, item, n);
    if (!d->lines) lua_rawseti(L, -2, 2);
    lua_rawseti(L, 3, ++count);
  }
  lua_pushlstring(L, data + at, len - at);
  lua_setiuservalue(L, 1, 1);
  return d->error.kind && !count ? dr_return_error(L, &d->error) : 1;
}

// decoder:pending() -> the number of bytes kept of an unfinished line or frame, or missing from it; 0: none is
// open
static int l_pending(lua_State *L) {
  struct decoder *d = luaL_checkudata(L, 1, DECODER);
  lua_getiuservalue(L, 1, 1);
  lua_pushinteger(L, (lua_Integer)lua_rawlen(L, -1) + d->frames.left);
  return 1;
}

static int l_tostring(lua_State *L) {
  struct decoder *d = luaL_checkudata(L, 1, DECODER);
  lua_pushfstring(L, "decoder (%s)", d->lines ? "lines" : "frames");
  return 1;
}

int luaopen_dockrun_core_frames(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"feed", l_feed}, {"pending", l_pending}, {"__tostring", l_tostring}, {NULL, NULL}};
  static const luaL_Reg module[] = {{"decoder", l_decoder}, {NULL, NULL}};
  luaL_newmetatable(L, DECODER);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
