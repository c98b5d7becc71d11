// One HTTP exchange: an easy handle whose answer and body go through a channel.
#include <ctype.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "data/lua_util.h"
#include "http/http.h"

static const char REQUEST[] = "dockrun.request";

enum { MAX_HEADERS = 256 * 1024 };

// ---- libcurl's callbacks: no Lua here ----------------------------------------------------------

// Whether its answer is handed on as it comes. Any answer but a success is collected: it says what is wrong.
static bool request_is_stream(const struct dr_request *r) { return r->stream && dr_http_succeeded(r->status); }

static void request_head_complete(struct dr_request *r) {
  if (r->head_done) return;
  curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->status);
  r->head_done = true;
  if (request_is_stream(r) || (r->upload && !r->out_ended)) dr_wake(&r->channel.reader);  // a refusal ends an upload
}

static size_t request_out_of_memory(struct dr_request *r) {
  dr_fail(&r->channel.error, "system", ENOMEM, "out of memory for the answer of %s", r->who);
  r->channel.failed = true;
  return 0;
}

static size_t request_on_header(char *data, size_t size, size_t n, void *arg) {
  struct dr_request *r = arg;
  size_t len = size * n;
  if (!len) return 0;
  if (len >= 5 && !memcmp(data, "HTTP/", 5)) {  // a later answer takes the place of a 1xx one
    dr_buffer_drop(&r->headers, dr_buffer_len(&r->headers));
    return len;
  }
  if (dr_buffer_len(&r->headers) + len > MAX_HEADERS) {
    dr_fail(&r->channel.error, "protocol", EPROTO, "more than %d KiB of headers from %s", MAX_HEADERS / 1024, r->who);
    r->channel.failed = true;
    return 0;
  }
  if (data[0] == '\n' || (len == 2 && data[0] == '\r')) {  // the end of a head
    long status = 0;
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200) request_head_complete(r);
    return len;
  }
  return dr_buffer_add(&r->headers, data, len) ? request_out_of_memory(r) : len;
}

static size_t request_on_data(char *data, size_t size, size_t n, void *arg) {
  struct dr_request *r = arg;
  struct dr_channel *c = &r->channel;
  size_t len = size * n;
  request_head_complete(r);
  bool stream = request_is_stream(r);
  if (stream && dr_channel_full(c)) {
    r->receive_paused = true;
    dr_wake(&c->reader);  // which may need more bytes for one item
    return CURL_WRITEFUNC_PAUSE;
  }
  if (!stream && dr_buffer_len(&c->in) + len > r->limit) {
    dr_fail(&c->error, "protocol", EFBIG, "an answer of more than %zu bytes from %s", r->limit, r->who);
    c->failed = true;
    return 0;
  }
  if (dr_buffer_add(&c->in, data, len)) return request_out_of_memory(r);
  if (stream) dr_wake(&c->reader);
  return len;
}

static size_t request_on_body_wanted(char *data, size_t size, size_t n, void *arg) {
  struct dr_request *r = arg;
  struct dr_channel *c = &r->channel;
  size_t len = dr_buffer_len(&c->out), room = size * n;
  if (!len && !r->out_ended) {
    r->send_paused = true;
    return CURL_READFUNC_PAUSE;
  }
  if (len > room) len = room;
  if (len) memcpy(data, dr_buffer_data(&c->out), len);
  dr_buffer_drop(&c->out, len);
  if (dr_buffer_len(&c->out) < DR_HIGH_WATER / 2) dr_wake(&c->writer);
  return len;
}

static void request_on_done(void *arg, CURLcode result) {
  struct dr_request *r = arg;
  struct dr_channel *c = &r->channel;
  // An engine that refuses an upload answers and closes early: the answer is what counts.
  if (result == CURLE_SEND_ERROR && r->head_done && !dr_http_succeeded(r->status)) result = CURLE_OK;
  if (result == CURLE_OK && !r->head_done) result = CURLE_GOT_NOTHING;  // libcurl lets half a head pass for one
  if (result != CURLE_OK && !c->failed) {
    dr_http_error(&c->error, r->easy, result, r->who, r->detail);
    c->failed = true;
  }
  dr_channel_end(c);
}

// ---- the channel's side ------------------------------------------------------------------------

static void request_unpause(struct dr_request *r) {
  if (!r->easy || r->channel.ended) return;
  int pause = (r->receive_paused ? CURLPAUSE_RECV : 0) | (r->send_paused ? CURLPAUSE_SEND : 0);
  CURLcode result =
      curl_easy_pause(r->easy, pause);  // may call request_on_data, and its failure is not reported elsewhere
  if (result != CURLE_OK) request_on_done(r, result);
}

static void request_more(struct dr_channel *c) {
  struct dr_request *r = (struct dr_request *)c;
  if (!r->receive_paused) return;
  r->receive_paused = false;
  request_unpause(r);
}

static void request_flush(struct dr_channel *c) {
  struct dr_request *r = (struct dr_request *)c;
  if (!r->send_paused) return;
  r->send_paused = false;
  request_unpause(r);
}

static void request_half_close(struct dr_channel *c) {
  ((struct dr_request *)c)->out_ended = true;
  request_flush(c);
}

static void request_close(struct dr_channel *c) {
  struct dr_request *r = (struct dr_request *)c;
  if (r->easy) dr_http_remove(r->http, r->easy);
  r->easy = NULL;
  curl_slist_free_all(r->request_headers);
  r->request_headers = NULL;
  dr_buffer_free(&c->in);
  dr_buffer_free(&c->out);
  dr_buffer_free(&r->headers);
  c->ended = true;
}

// The fiber that waited was cancelled or out of time: the answer is not needed any longer.
static void request_stop(struct dr_wait *w) {
  struct dr_channel *c = dr_channel_of_reader(w);
  const char *kind = w->outcome == DR_TIMED_OUT ? "timeout" : "cancelled";
  dr_fail(&c->error, kind, ETIMEDOUT, "no answer in time from %s", ((struct dr_request *)c)->who);
  c->failed = true;
  request_close(c);
}

// ---- the border --------------------------------------------------------------------------------

static int l_gc(lua_State *L) {
  request_close(luaL_checkudata(L, 1, REQUEST));
  return 0;
}

static int request_new(lua_State *L, struct dr_request **out) {
  struct dr_request *r = lua_newuserdatauv(L, sizeof *r, 1);
  memset(r, 0, sizeof *r);
  r->channel.more = request_more;
  r->channel.flush = request_flush;
  r->channel.half_close = request_half_close;
  r->channel.close = request_close;
  dr_set_gc(L, REQUEST, l_gc);
  *out = r;
  return 0;
}

static void request_set_method(struct dr_request *r, const struct dr_request_options *o, const char *body, size_t len) {
  CURL *easy = r->easy;
  if (!strcmp(o->method, "HEAD")) {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    return;
  }
  if (o->upload) {
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, request_on_body_wanted);
    curl_easy_setopt(easy, CURLOPT_READDATA, r);
  } else if (body || !strcmp(o->method, "POST") || !strcmp(o->method, "PUT")) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body ? body : "");
  }
  curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, o->method);
}

static bool request_add_header(struct dr_request *r, const char *line) {
  struct curl_slist *more = curl_slist_append(r->request_headers, line);
  if (more) r->request_headers = more;
  return more;
}

// Takes the lines of the list at idx.
static bool request_add_headers(lua_State *L, struct dr_request *r, int idx) {
  lua_Integer count = idx ? (lua_Integer)lua_rawlen(L, idx) : 0;
  bool ok = true;
  for (lua_Integer i = 1; ok && i <= count; i++) {
    lua_rawgeti(L, idx, i);
    ok = request_add_header(r, lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  // "Expect: 100-continue" would cost a round trip, or a second if the peer ignores it.
  return ok && request_add_header(r, "Expect:");
}

struct dr_request *dr_request_start(lua_State *L, const struct dr_request_options *o, struct dr_error *e) {
  struct dr_request *r;
  int body = o->body ? lua_absindex(L, o->body) : 0, headers = o->headers ? lua_absindex(L, o->headers) : 0;
  struct dr_http *http = dr_http_of(L);
  request_new(L, &r);
  r->http = http;
  r->stream = o->stream;
  r->upload = o->upload;
  r->limit = o->limit;
  snprintf(r->who, sizeof r->who, "%s", o->who);
  r->easy = curl_easy_init();
  if (!r->easy || !request_add_headers(L, r, headers) || dr_http_prepare(r->easy, o, r->detail)) goto fail;
  curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->request_headers);
  curl_easy_setopt(r->easy, CURLOPT_HEADERFUNCTION, request_on_header);
  curl_easy_setopt(r->easy, CURLOPT_HEADERDATA, r);
  curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, request_on_data);
  curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
  size_t len = 0;
  const char *text = body ? lua_tolstring(L, body, &len) : NULL;
  if (body) {
    lua_pushvalue(L, body);  // libcurl does not copy it
    lua_setiuservalue(L, -2, 1);
  }
  request_set_method(r, o, text, len);
  if (dr_http_add(http, r->easy, request_on_done, r)) goto fail;
  return r;
fail:
  dr_fail(e, "system", ENOMEM, "cannot start a request to %s: out of memory", o->who);
  if (r->easy) curl_easy_cleanup(r->easy);
  r->easy = NULL;
  request_close(&r->channel);
  lua_pop(L, 1);
  return NULL;
}

int dr_request_wait(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx) {
  struct dr_request *r = lua_touserdata(L, idx);
  if (r->channel.ended || (r->head_done && request_is_stream(r))) return k(L, LUA_OK, ctx);
  return dr_request_wait_news(L, idx, timeout, k, ctx);
}

int dr_request_wait_news(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx) {
  struct dr_request *r = lua_touserdata(L, idx);
  r->channel.reader.stop = request_stop;
  r->channel.reader.what = "an HTTP answer";
  return dr_wait(L, &r->channel.reader, idx, timeout, k, ctx);
}

static const char *header_next(const struct dr_buffer *raw, size_t *at, const char **name, size_t *name_len,
                               size_t *value_len) {
  const char *data = dr_buffer_data(raw);
  while (*at < dr_buffer_len(raw)) {
    const char *line = data + *at, *end = memchr(line, '\n', dr_buffer_len(raw) - *at);
    if (!end) end = data + dr_buffer_len(raw);
    *at = end - data + 1;
    const char *colon = memchr(line, ':', end - line);
    if (!colon) continue;
    *name = line;
    *name_len = colon - line;
    const char *value = colon + 1;
    while (value < end && isspace((unsigned char)*value)) value++;
    while (end > value && isspace((unsigned char)end[-1])) end--;
    *value_len = end - value;
    return value;
  }
  return NULL;
}

const char *dr_header(const struct dr_buffer *raw, const char *name, size_t *len) {
  const char *found_name, *found;
  size_t at = 0, name_len;
  while ((found = header_next(raw, &at, &found_name, &name_len, len))) {
    if (name_len == strlen(name) && !strncasecmp(found_name, name, name_len)) return found;
  }
  *len = 0;
  return NULL;
}

void dr_push_headers(lua_State *L, const struct dr_buffer *raw) {
  const char *name, *value;
  size_t at = 0, name_len, len;
  lua_newtable(L);
  int table = lua_gettop(L);
  while ((value = header_next(raw, &at, &name, &name_len, &len))) {
    luaL_Buffer b;
    char *lower = luaL_buffinitsize(L, &b, name_len);
    for (size_t i = 0; i < name_len; i++) lower[i] = (char)tolower((unsigned char)name[i]);
    luaL_pushresultsize(&b, name_len);
    lua_pushvalue(L, -1);
    bool again = lua_rawget(L, table) == LUA_TSTRING;
    if (again) lua_pushliteral(L, ", ");
    lua_pushlstring(L, value, len);
    if (again) lua_concat(L, 3);
    if (!again) lua_replace(L, -2);
    lua_rawset(L, table);
  }
}
