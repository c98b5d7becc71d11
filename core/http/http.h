// HTTP by libcurl's multi interface on the runtime's loop.
#ifndef DOCKRUN_HTTP_H
#define DOCKRUN_HTTP_H

#include <curl/curl.h>

#include "runtime/channel.h"

struct dr_http;

// Whether the request succeeded. A redirect is no success: it asks for another request.
static inline bool dr_http_succeeded(long status) { return status >= 200 && status < 300; }

struct dr_tls {
  const char *ca, *cert, *key;  // PEM files, or NULL
  bool insecure;                // no check of the peer's certificate
};

struct dr_request_options {
  const char *method, *url;
  const char *unix_socket;  // path, or NULL
  const char *who;          // the peer's name in error messages, such as "the Docker engine at unix:///…"
  struct dr_tls tls;
  bool proxy;   // honour http_proxy and its kin
  int headers;  // stack index of a list of lines "Name: value", or 0
  int body;     // stack index of a string, or 0
  bool upload;  // the body comes through the channel instead
  bool stream;  // the answer is read through the channel; otherwise collected, up to `limit` bytes
  size_t limit;
};

// One exchange. Its answer is in channel.in, and whole once channel.ended.
struct dr_request {
  struct dr_channel channel;  // first: the callbacks get one for the other
  struct dr_http *http;
  CURL *easy;
  struct curl_slist *request_headers;
  struct dr_buffer headers;  // the final answer's, raw lines
  long status;
  bool head_done, stream, upload, receive_paused, send_paused, out_ended;
  size_t limit;
  char who[160];
  char detail[CURL_ERROR_SIZE];
};

// Starts a request and pushes its userdata. If it cannot be started: NULL with e filled, and nothing pushed.
struct dr_request *dr_request_start(lua_State *L, const struct dr_request_options *o, struct dr_error *e);

// Waits until the head of the answer is there (stream) or all of it (otherwise), at most `timeout` seconds, then calls
// k. idx is the request's stack index. A time-out closes it and leaves its error in the channel.
int dr_request_wait(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx);

// The same, but calls k as soon as anything comes, or another fiber wakes the reader.
int dr_request_wait_news(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx);

// The value of a header among raw lines, of length *len and not terminated; NULL and 0 if there is none.
const char *dr_header(const struct dr_buffer *raw, const char *name, size_t *len);

// Pushes the headers as a table with lower-case names; one that comes twice is joined by commas (RFC 9110, 5.2).
void dr_push_headers(lua_State *L, const struct dr_buffer *raw);

// For upgrade.c: the multi handle of this state, its error texts, and the settings that every easy handle shares.
struct dr_http *dr_http_of(lua_State *L);
int dr_http_add(struct dr_http *http, CURL *easy, void (*done)(void *arg, CURLcode result), void *arg);
void dr_http_remove(struct dr_http *http, CURL *easy);
int dr_http_prepare(CURL *easy, const struct dr_request_options *o, char *detail);
int dr_http_error(struct dr_error *e, CURL *easy, CURLcode code, const char *who, const char *detail);
uv_loop_t *dr_http_loop(struct dr_http *http);

// An upgraded (hijacked) connection: sends the request text, reads the head of the answer, then is a channel of raw
// bytes.
struct dr_upgrade {
  struct dr_channel channel;
  struct dr_http *http;
  CURL *easy;
  uv_poll_t *poll;
  curl_socket_t fd;
  struct dr_buffer headers, sending;
  long status;
  bool head_done, out_ended;
  int events;
  char who[160];
  char detail[CURL_ERROR_SIZE];
};

// `text` is the whole request, head and body. Pushes the userdata; NULL with e filled if it cannot be started.
struct dr_upgrade *dr_upgrade_start(lua_State *L, const struct dr_request_options *o, const char *text, size_t len,
                                    struct dr_error *e);
// Waits for the head of the answer; if it is a refusal (300 or more), for its body as well.
int dr_upgrade_wait(lua_State *L, int idx, double timeout, lua_KFunction k, lua_KContext ctx);

#endif
