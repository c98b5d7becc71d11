// A body that a function gives piece by piece, not faster than the engine takes it. A fiber of its own asks the
// function: however long that takes, the call's time-out holds, and an early answer of the engine is heard.
#include <lauxlib.h>

#include "docker/engine.h"

enum { PIECES = 64 };  // after so many, however small they are, the other fibers have their turn

static struct dr_channel *upload_channel(lua_State *L, int idx) {
  return &((struct dr_request *)lua_touserdata(L, idx))->channel;
}

// Whether nothing more of the body is wanted: the engine has refused, or the call is over.
static bool upload_is_decided(lua_State *L, int idx) {
  const struct dr_request *r = lua_touserdata(L, idx);
  return r->channel.ended || (r->head_done && !dr_http_succeeded(r->status));
}

// ---- the fiber that feeds the request: its stack holds the request and the function ------------

static void upload_send_piece(lua_State *L, struct dr_channel *c) {
  size_t len = 0;
  const char *piece = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &len) : NULL;
  if (!piece) luaL_error(L, "a body function returns strings, then nil");
  if (dr_buffer_add(&c->out, piece, len)) luaL_error(L, "out of memory");
  c->flush(c);
  lua_settop(L, 2);
}

static int upload_continue(lua_State *L, int status, lua_KContext pieces);
static int upload_given(lua_State *L, int status, lua_KContext pieces);

// has_piece: the function has just returned, and its piece is at the top.
static int upload_feed(lua_State *L, bool has_piece, lua_KContext pieces) {
  struct dr_channel *c = upload_channel(L, 1);
  for (;; has_piece = true) {
    if (upload_is_decided(L, 1)) return 0;
    if (has_piece && lua_isnil(L, -1)) {
      c->half_close(c);
      return 0;
    }
    if (has_piece) {
      upload_send_piece(L, c);
      pieces++;
      if (dr_buffer_len(&c->out) > DR_HIGH_WATER) {
        c->writer.what = "room in an upload";
        return dr_wait(L, &c->writer, 1, -1, upload_continue, pieces);
      }
      if (pieces % PIECES == 0) return lua_yieldk(L, 0, pieces, upload_continue);
    }
    lua_pushvalue(L, 2);
    lua_callk(L, 0, 1, pieces, upload_given);
  }
}

static int upload_given(lua_State *L, int status, lua_KContext pieces) {
  (void)status;
  return upload_feed(L, true, pieces);
}

static int upload_continue(lua_State *L, int status, lua_KContext pieces) {
  (void)status;
  lua_settop(L, 2);
  return upload_feed(L, false, pieces);
}

static int upload_feed_all(lua_State *L) { return upload_feed(L, false, 0); }

static int upload_fed(lua_State *L, int status, lua_KContext ctx) {
  (void)ctx;
  dr_wake(&upload_channel(L, 1)->reader);  // the call, which takes the error
  return status == LUA_OK || status == LUA_YIELD ? 0 : lua_error(L);
}

static int upload_feeder(lua_State *L) {
  lua_pushcfunction(L, upload_feed_all);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  return upload_fed(L, lua_pcallk(L, 2, 0, 0, 0, upload_fed), 0);
}

// ---- the call ----------------------------------------------------------------------------------

// The feeder has ended.
static int uploaded(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  struct dr_channel *c = upload_channel(L, AT_EXCHANGE);
  lua_settop(L, AT_SCOPE);
  if (!dr_fiber_results(L, lua_touserdata(L, AT_SCOPE), AT_SCOPE) && !upload_is_decided(L, AT_EXCHANGE)) {
    c->close(c);
    lua_pop(L, 1);  // the traceback
    return lua_error(L);
  }
  lua_settop(L, AT_SCOPE);
  c->half_close(c);  // libcurl takes no answer as long as it waits for a piece
  return dr_request_wait(L, AT_EXCHANGE, dr_time_left(L), dr_answered, ctx);
}

static int uploading(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  lua_settop(L, AT_SCOPE);
  if (!dr_fiber_ended(lua_touserdata(L, AT_SCOPE)) && !upload_is_decided(L, AT_EXCHANGE))
    return dr_request_wait_news(L, AT_EXCHANGE, dr_time_left(L), uploading, ctx);
  lua_getfield(L, AT_SCOPE, "__close");
  lua_pushvalue(L, AT_SCOPE);
  lua_callk(L, 1, 0, ctx, uploaded);
  return uploaded(L, LUA_OK, ctx);
}

int dr_upload(lua_State *L, const struct dr_operation *row) {
  lua_settop(L, AT_DEADLINE);
  lua_pushcfunction(L, upload_feeder);
  lua_pushvalue(L, AT_EXCHANGE);
  lua_pushvalue(L, AT_BODY);
  dr_spawn(L, 2, false);
  lua_toclose(L, AT_SCOPE);
  return uploading(L, LUA_OK, (lua_KContext)row);
}
