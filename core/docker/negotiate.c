// The version of the API: asked for once, however many calls begin at the same time. The first one asks, and the others
// wait for what it hears. If it is cancelled or runs out of its own time, the next one asks.
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "data/json.h"
#include "docker/engine.h"

// Versions of the API that the table was checked against (1.41 to 1.55); older engines speak subsets of it.
enum { OLDEST_API = 24, NEWEST_API = 55 };

// ---- those that wait ---------------------------------------------------------------------------

struct dr_listener {
  struct dr_wait wait;
  struct dr_engine *engine;
  struct dr_listener *next;
  bool failed;  // the answer is no version, but the error at DR_ENGINE_FAILURE
};

static void listener_enter(struct dr_wait *w) {
  struct dr_listener *l = (struct dr_listener *)w;
  l->next = l->engine->listeners;
  l->engine->listeners = l;
}

static void listener_leave(struct dr_wait *w) {
  struct dr_listener *l = (struct dr_listener *)w;
  for (struct dr_listener **at = &l->engine->listeners; *at; at = &(*at)->next) {
    if (*at != l) continue;
    *at = l->next;
    break;
  }
}

static void listener_wake_all(struct dr_engine *e, bool failed) {
  while (e->listeners) {
    struct dr_listener *l = e->listeners;
    e->listeners = l->next;
    l->failed = failed;
    dr_wake(&l->wait);
  }
}

// Pushes a copy of the error at the top: each caller may add its own words.
static void negotiate_push_copy(lua_State *L) {
  int from = lua_gettop(L);
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, from);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, from + 1);
  }
  if (lua_getmetatable(L, from)) lua_setmetatable(L, from + 1);
}

// ---- the one that asks -------------------------------------------------------------------------

static const char ASKING[] = "dockrun.asking";

// Its scope: however the call ends, the next one may ask.
static int l_end(lua_State *L) {
  struct dr_engine **e = luaL_checkudata(L, 1, ASKING);
  if (!*e) return 0;
  (*e)->asking = false;
  listener_wake_all(*e, false);
  *e = NULL;
  return 0;
}

static int l_gc(lua_State *L) {
  struct dr_engine **e = luaL_checkudata(L, 1, ASKING);
  if (*e) (*e)->asking = false;
  *e = NULL;
  return 0;
}

static void negotiate_open_scope(lua_State *L, struct dr_engine *e) {
  static const luaL_Reg methods[] = {{"__close", l_end}, {"__gc", l_gc}, {NULL, NULL}};
  struct dr_engine **scope = lua_newuserdatauv(L, sizeof *scope, 1);
  *scope = NULL;
  luaL_newmetatable(L, ASKING);
  luaL_setfuncs(L, methods, 0);  // each time, see dr_set_gc
  lua_setmetatable(L, -2);
  lua_pushvalue(L, AT_ENGINE);
  lua_setiuservalue(L, -2, 1);
  lua_toclose(L, -1);
  *scope = e;
  e->asking = true;
}

// All fibers that wait get the nil and error at the top, unless only the caller's own time was over.
static int negotiate_fail(lua_State *L, struct dr_engine *e, struct dr_request *r) {
  if (r->channel.reader.outcome != DR_TIMED_OUT) {
    negotiate_push_copy(L);
    lua_setiuservalue(L, AT_ENGINE, DR_ENGINE_FAILURE);
    listener_wake_all(e, true);
  }
  r->channel.close(&r->channel);
  return 2;
}

static int negotiate_minor(lua_State *L, const char *field) {
  int minor = 0;
  if (lua_getfield(L, -1, field) == LUA_TSTRING) sscanf(lua_tostring(L, -1), "1.%d", &minor);
  lua_pop(L, 1);
  return minor;
}

static int negotiated(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_operation *row = (const struct dr_operation *)ctx;
  struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  struct dr_request *r = lua_touserdata(L, AT_EXCHANGE);
  struct dr_channel *c = &r->channel;
  struct dr_error error;
  if (c->failed) {
    dr_failed(L, e, &c->error);
    return negotiate_fail(L, e, r);
  }
  if (!dr_http_succeeded(r->status)) {
    dr_refused(L, e, row, r->status, &r->headers, &c->in);
    return negotiate_fail(L, e, r);
  }
  size_t len = dr_buffer_len(&c->in);
  if (!len || dr_json_decode(L, dr_buffer_data(&c->in), len) != 1 || !lua_istable(L, -1) ||
      !negotiate_minor(L, "ApiVersion")) {
    dr_fail(&error, "protocol", EPROTO, "%s does not tell its API version: is it a Docker engine?", e->who);
    dr_return_error(L, &error);
    return negotiate_fail(L, e, r);
  }
  int newest = negotiate_minor(L, "ApiVersion"), oldest = negotiate_minor(L, "MinAPIVersion");
  if (newest < OLDEST_API || oldest > NEWEST_API) {
    dr_fail(&error, "invalid", EPROTO, "%s speaks API 1.%d to 1.%d, dockrun 1.%d to 1.%d", e->who, oldest, newest,
            OLDEST_API, NEWEST_API);
    dr_return_error(L, &error);
    return negotiate_fail(L, e, r);
  }
  c->close(c);
  e->api = newest < NEWEST_API ? newest : NEWEST_API;
  return dr_call_on(L, row);
}

static int negotiate_ask(lua_State *L, struct dr_engine *e, const struct dr_operation *row) {
  struct dr_error error;
  struct dr_request_options o = dr_options_for(e, "GET", lua_pushfstring(L, "%s/version", e->url));
  if (!dr_request_start(L, &o, &error)) return dr_return_error(L, &error);
  lua_replace(L, AT_EXCHANGE);
  lua_settop(L, AT_DEADLINE);
  negotiate_open_scope(L, e);
  return dr_request_wait(L, AT_EXCHANGE, dr_time_left(L), negotiated, (lua_KContext)row);
}

static int negotiate_heard(lua_State *L, int status, lua_KContext ctx) {
  (void)status;
  const struct dr_operation *row = (const struct dr_operation *)ctx;
  struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  struct dr_listener *l = lua_touserdata(L, AT_EXCHANGE);
  if (l->wait.outcome == DR_TIMED_OUT) {
    struct dr_error error;
    dr_fail(&error, "timeout", ETIMEDOUT, "no answer in time from %s", e->who);
    return dr_return_error(L, &error);
  }
  if (e->api || !l->failed) return dr_negotiate(L, row);
  lua_pushnil(L);
  lua_getiuservalue(L, AT_ENGINE, DR_ENGINE_FAILURE);
  negotiate_push_copy(L);
  lua_remove(L, -2);
  return 2;
}

static int negotiate_wait(lua_State *L, struct dr_engine *e, const struct dr_operation *row) {
  struct dr_listener *l = lua_newuserdatauv(L, sizeof *l, 1);
  *l = (struct dr_listener){.engine = e,
                            .wait = {.what = "the API version", .start = listener_enter, .stop = listener_leave}};
  lua_pushvalue(L, AT_ENGINE);
  lua_setiuservalue(L, -2, 1);
  lua_replace(L, AT_EXCHANGE);
  lua_settop(L, AT_DEADLINE);
  return dr_wait(L, &l->wait, AT_EXCHANGE, dr_time_left(L), negotiate_heard, (lua_KContext)row);
}

int dr_negotiate(lua_State *L, const struct dr_operation *row) {
  struct dr_engine *e = lua_touserdata(L, AT_ENGINE);
  if (e->api) return dr_call_on(L, row);
  return e->asking ? negotiate_wait(L, e, row) : negotiate_ask(L, e, row);
}
