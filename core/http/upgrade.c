// Upgraded (hijacked) connections, for attach and exec: HTTP once, raw bytes both ways from then on. libcurl makes the
// connection (unix, TCP or TLS, CURLOPT_CONNECT_ONLY); the one request is written and its answer's head read here.
// Engine API, "Attach to a container": 101 UPGRADED, or 200 from engines that ignore the upgrade headers.
#include <ctype.h>
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "data/lua_util.h"
#include "http/http.h"

static const char UPGRADE[] = "dockrun.upgrade";

enum { MAX_HEAD = 64 * 1024, MAX_REFUSAL = 1024 * 1024 };

static void upgrade_watch(struct dr_upgrade *u);

static void upgrade_fail(struct dr_upgrade *u, CURLcode code) {
  if (!u->channel.failed) dr_http_error(&u->channel.error, u->easy, code, u->who, u->detail);
  u->channel.failed = true;
  dr_channel_end(&u->channel);
}

static void upgrade_break(struct dr_upgrade *u, const char *what) {
  dr_fail(&u->channel.error, "protocol", EPROTO, "%s from %s", what, u->who);
  u->channel.failed = true;
  dr_channel_end(&u->channel);
}

// ---- the head of the answer --------------------------------------------------------------------

static bool upgrade_is_refusal(const struct dr_upgrade *u) { return u->head_done && u->status >= 300; }

static bool upgrade_header_is(const struct dr_upgrade *u, const char *name, const char *wanted) {
  size_t len;
  const char *value = dr_header(&u->headers, name, &len);
  return value && len == strlen(wanted) && !strncasecmp(value, wanted, len);
}

// Takes the framing off the chunks (RFC 9112, 7.1) of a body that began at data. Returns its length once it is whole,
// -EAGAIN until then, or -EPROTO.
static ssize_t upgrade_unchunk(char *data, size_t len) {
  char *at = data, *end = data + len, *out = data;
  for (int pass = 0; pass < 2; at = data, pass++) {  // whole at all? then in place
    for (;;) {
      char *line = memchr(at, '\n', end - at);
      if (!line) return -EAGAIN;
      if (!isxdigit((unsigned char)*at)) return -EPROTO;
      unsigned long size = strtoul(at, NULL, 16);
      if (size > MAX_REFUSAL) return -EPROTO;
      if (size == 0) break;
      if ((size_t)(end - line) < 1 + size + 2) return -EAGAIN;
      if (pass) memmove(out, line + 1, size), out += size;
      at = line + 1 + size;
      at += *at == '\r';
      if (*at++ != '\n') return -EPROTO;
    }
  }
  return out - data;
}

// Whether a refusal's body is whole, which then is all that `in` holds. The engine tells the length of a short one, and
// sends a long one in chunks.
static bool upgrade_refusal_is_whole(struct dr_upgrade *u) {
  struct dr_buffer *in = &u->channel.in;
  size_t len;
  const char *length = dr_header(&u->headers, "content-length", &len);
  if (length) return dr_buffer_len(in) >= strtoull(length, NULL, 10);  // a line's end stops it
  if (!upgrade_header_is(u, "transfer-encoding", "chunked")) return false;
  ssize_t whole = dr_buffer_len(in) ? upgrade_unchunk(in->data + in->at, dr_buffer_len(in)) : -EAGAIN;
  if (whole >= 0) in->end = in->at + whole;
  if (whole == -EPROTO) upgrade_break(u, "broken chunks");
  return whole >= 0;
}

// Takes the head off `in` once it is whole.
static void upgrade_take_head(struct dr_upgrade *u) {
  struct dr_buffer *in = &u->channel.in;
  size_t len = dr_buffer_len(in);
  const char *data = dr_buffer_data(in), *end = len ? memmem(data, len, "\r\n\r\n", 4) : NULL;
  if (!end) {
    if (len > MAX_HEAD) upgrade_break(u, "an endless answer");
    return;
  }
  if (len < 13 || memcmp(data, "HTTP/1.", 7) || data[8] != ' ' || !isdigit((unsigned char)data[9])) {
    upgrade_break(u, "something that is not HTTP/1");
    return;
  }
  u->status = strtol(data + 9, NULL, 10);
  const char *lines = (const char *)memchr(data, '\n', len) + 1;
  dr_buffer_drop(&u->headers, dr_buffer_len(&u->headers));
  if (lines < end && dr_buffer_add(&u->headers, lines, end + 2 - lines)) {
    upgrade_fail(u, CURLE_OUT_OF_MEMORY);
    return;
  }
  dr_buffer_drop(in, end + 4 - data);
  if (u->status == 101 || u->status >= 200)
    u->head_done = true;
  else
    upgrade_take_head(u);  // 1xx: the answer is still to come
}

// ---- the socket --------------------------------------------------------------------------------

static void upgrade_receive(struct dr_upgrade *u) {
  char chunk[16 * 1024];
  struct dr_channel *c = &u->channel;
  while (!c->ended && (!u->head_done || upgrade_is_refusal(u) || !dr_channel_full(c))) {
    size_t n = 0;
    CURLcode code = curl_easy_recv(u->easy, chunk, sizeof chunk, &n);
    if (code == CURLE_AGAIN) break;
    if (code == CURLE_OK && n == 0) {
      if (!u->head_done) upgrade_fail(u, CURLE_GOT_NOTHING);
      dr_channel_end(c);
      break;
    }
    if (code == CURLE_OK && dr_buffer_add(&c->in, chunk, n)) code = CURLE_OUT_OF_MEMORY;
    if (code != CURLE_OK) {
      upgrade_fail(u, code);
      break;
    }
    if (!u->head_done) upgrade_take_head(u);
    if (upgrade_is_refusal(u)) {
      if (upgrade_refusal_is_whole(u))
        dr_channel_end(c);
      else if (dr_buffer_len(&c->in) > MAX_REFUSAL)
        upgrade_break(u, "an endless refusal");
    } else if (u->head_done) {
      dr_wake(&c->reader);
    }
  }
}

static size_t upgrade_unsent(const struct dr_upgrade *u) {
  return dr_buffer_len(&u->sending) + dr_buffer_len(&u->channel.out);
}

// Of TLS, this is an end at a record's border: Go takes it for one, and still writes.
static void upgrade_end_out(struct dr_upgrade *u) {
  if (!upgrade_unsent(u) && u->out_ended && !u->channel.ended) shutdown(u->fd, SHUT_WR);
}

// TLS wants the same bytes at the same place again if it could not send them (SSL_write(3)), so they leave `out`,
// which grows and moves.
static void upgrade_transmit(struct dr_upgrade *u) {
  struct dr_channel *c = &u->channel;
  while (!c->ended && upgrade_unsent(u)) {
    if (!dr_buffer_len(&u->sending)) {
      struct dr_buffer empty = u->sending;
      u->sending = c->out;
      c->out = empty;
    }
    size_t n = 0;
    CURLcode code = curl_easy_send(u->easy, dr_buffer_data(&u->sending), dr_buffer_len(&u->sending), &n);
    if (code == CURLE_AGAIN) break;
    if (code != CURLE_OK) {
      upgrade_fail(u, code);
      return;
    }
    dr_buffer_drop(&u->sending, n);
  }
  if (upgrade_unsent(u) < DR_HIGH_WATER / 2) dr_wake(&c->writer);
  upgrade_end_out(u);
}

static void upgrade_on_poll(uv_poll_t *poll, int status, int events) {
  struct dr_upgrade *u = poll->data;
  if (status < 0) u->events = 0;  // libuv has stopped; there may be more to read before the error
  if (status < 0 || (events & UV_READABLE)) upgrade_receive(u);
  if (events & UV_WRITABLE) upgrade_transmit(u);
  upgrade_watch(u);
}

// Asks the loop for what is still wanted: reading while there is room, writing while there is something to write.
static void upgrade_watch(struct dr_upgrade *u) {
  struct dr_channel *c = &u->channel;
  if (!u->poll) return;
  int events = 0;
  if (!c->ended && (!u->head_done || upgrade_is_refusal(u) || !dr_channel_full(c))) events |= UV_READABLE;
  if (!c->ended && upgrade_unsent(u)) events |= UV_WRITABLE;
  if (events == u->events) return;
  u->events = events;
  if (events)
    uv_poll_start(u->poll, events, upgrade_on_poll);
  else
    uv_poll_stop(u->poll);
}

static void upgrade_on_connected(void *arg, CURLcode result) {
  struct dr_upgrade *u = arg;
  if (result != CURLE_OK) {
    upgrade_fail(u, result);
    return;
  }
  curl_easy_getinfo(u->easy, CURLINFO_ACTIVESOCKET, &u->fd);
  u->poll = malloc(sizeof *u->poll);
  if (!u->poll || uv_poll_init_socket(dr_http_loop(u->http), u->poll, u->fd)) {
    free(u->poll);
    u->poll = NULL;
    upgrade_fail(u, CURLE_OUT_OF_MEMORY);
    return;
  }
  u->poll->data = u;
  upgrade_watch(u);
}

// ---- the channel's side ------------------------------------------------------------------------

static void upgrade_more(struct dr_channel *c) {
  struct dr_upgrade *u = (struct dr_upgrade *)c;
  if (u->poll && u->head_done) upgrade_receive(u);  // TLS may hold bytes for which the socket does not wake us
  upgrade_watch(u);
}

// What the kernel takes at once is safe from a close that follows.
static void upgrade_flush(struct dr_channel *c) {
  struct dr_upgrade *u = (struct dr_upgrade *)c;
  if (u->poll) upgrade_transmit(u);
  upgrade_watch(u);
}

static void upgrade_half_close(struct dr_channel *c) {
  struct dr_upgrade *u = (struct dr_upgrade *)c;
  if (u->out_ended) return;
  u->out_ended = true;
  if (u->poll) upgrade_end_out(u);
}

static void upgrade_close(struct dr_channel *c) {
  struct dr_upgrade *u = (struct dr_upgrade *)c;
  if (u->poll) {
    uv_poll_stop(u->poll);
    uv_close((uv_handle_t *)u->poll, dr_free_handle);
  }
  u->poll = NULL;
  if (u->easy) dr_http_remove(u->http, u->easy);
  u->easy = NULL;
  dr_buffer_free(&c->in);
  dr_buffer_free(&c->out);
  dr_buffer_free(&u->sending);
  dr_buffer_free(&u->headers);
  c->ended = true;
}

static void upgrade_stop(struct dr_wait *w) {
  struct dr_channel *c = dr_channel_of_reader(w);
  struct dr_upgrade *u = (struct dr_upgrade *)c;
  dr_fail(&c->error, w->outcome == DR_TIMED_OUT ? "timeout" : "cancelled", ETIMEDOUT, "no answer in time from %s",
          u->who);
  c->failed = true;
  upgrade_close(c);
}

static int l_gc(lua_State *L) {
  upgrade_close(luaL_checkudata(L, 1, UPGRADE));
  return 0;
}

struct dr_upgrade *dr_upgrade_start(lua_State *L, const struct dr_request_options *o, const char *text, size_t len,
                                    struct dr_error *e) {
  struct dr_http *http = dr_http_of(L);
  struct dr_upgrade *u = lua_newuserdatauv(L, sizeof *u, 0);
  memset(u, 0, sizeof *u);
  u->http = http;
  u->fd = CURL_SOCKET_BAD;
  u->channel.writable = true;
  u->channel.more = upgrade_more;
  u->channel.flush = upgrade_flush;
  u->channel.half_close = upgrade_half_close;
  u->channel.close = upgrade_close;
  snprintf(u->who, sizeof u->who, "%s", o->who);
  dr_set_gc(L, UPGRADE, l_gc);
  u->easy = curl_easy_init();
  if (!u->easy || dr_buffer_add(&u->channel.out, text, len) || dr_http_prepare(u->easy, o, u->detail)) goto fail;
  curl_easy_setopt(u->easy, CURLOPT_CONNECT_ONLY, 1L);
  if (dr_http_add(http, u->easy, upgrade_on_connected, u)) goto fail;
  return u;
fail:
  dr_fail(e, "system", ENOMEM, "cannot start a connection to %s: out of memory", o->who);
  if (u->easy) curl_easy_cleanup(u->easy);
  u->easy = NULL;
  upgrade_close(&u->channel);
  lua_pop(L, 1);
  return NULL;
}

int dr_upgrade_wait(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx) {
  struct dr_upgrade *u = lua_touserdata(L, idx);
  if (u->channel.ended || (u->head_done && !upgrade_is_refusal(u))) return k(L, LUA_OK, ctx);
  u->channel.reader.stop = upgrade_stop;
  u->channel.reader.what = "an HTTP upgrade";
  return dr_wait(L, &u->channel.reader, idx, timeout, k, ctx);
}
