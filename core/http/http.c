// libcurl's multi handle on the runtime's loop (curl_multi_socket_action), one for each Lua state, so that connections
// are kept and shared. And dockrun.core.http: plain requests for scripts and hooks.
#include "http/http.h"
#include "data/lua_util.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static const char HTTP[] = "dockrun.http";
static const char KEY;

struct dr_http {
  CURLM *multi;
  uv_loop_t *loop;
  uv_timer_t *timer;
};

struct watched {  // a socket that libcurl wants watched
  uv_poll_t poll;
  struct dr_http *http;
  curl_socket_t fd;
  int events;
};

struct pending {  // an easy handle's way back
  void (*done)(void *arg, CURLcode result);
  void *arg;
};

// Once for each: what libcurl still says of a transfer that we have ended is of no interest.
static void http_end(CURL *easy, CURLcode result) {
  struct pending *p = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p);
  if (!p) return;
  curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
  p->done(p->arg, result);
  free(p);
}

static void http_collect_done(struct dr_http *http) {
  int left;
  for (CURLMsg *m; (m = curl_multi_info_read(http->multi, &left));)
    if (m->msg == CURLMSG_DONE) http_end(m->easy_handle, m->data.result);
}

static void http_on_poll(uv_poll_t *poll, int status, int events) {
  struct watched *w = poll->data;
  struct dr_http *http = w->http;
  int running, flags = 0;
  if (status < 0) flags = CURL_CSELECT_IN | CURL_CSELECT_OUT;  // let it meet the error itself: then it can say which
  if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
  if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
  curl_multi_socket_action(http->multi, w->fd, flags, &running);
  // libuv stops at an error; libcurl, which has not come to it yet, believes that the socket is watched.
  if (status < 0 && !uv_is_closing((uv_handle_t *)poll)) uv_poll_start(poll, w->events, http_on_poll);
  http_collect_done(http);
}

static void http_on_timer(uv_timer_t *timer) {
  struct dr_http *http = timer->data;
  int running;
  curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  http_collect_done(http);
}

static int http_want_timer(CURLM *multi, long ms, void *arg) {
  (void)multi;
  struct dr_http *http = arg;
  if (!http->timer) return 0;
  if (ms < 0) {
    uv_timer_stop(http->timer);
  } else {
    uv_update_time(http->loop);
    uv_timer_start(http->timer, http_on_timer, (uint64_t)ms, 0);
  }
  return 0;
}

static struct watched *http_watch(struct dr_http *http, curl_socket_t fd) {
  struct watched *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->http = http;
  w->fd = fd;
  if (uv_poll_init_socket(http->loop, &w->poll, fd)) {
    free(w);
    return NULL;
  }
  w->poll.data = w;
  curl_multi_assign(http->multi, fd, w);
  return w;
}

// A socket that cannot be watched fails its own transfer. Were libcurl told, all of the multi handle's would end.
static int http_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket) {
  struct dr_http *http = arg;
  struct watched *w = socket;
  if (what == CURL_POLL_REMOVE) {
    if (!w) return 0;
    uv_poll_stop(&w->poll);
    uv_close((uv_handle_t *)&w->poll, dr_free_handle);
    curl_multi_assign(http->multi, fd, NULL);
    return 0;
  }
  if (!w) w = http_watch(http, fd);
  if (w) w->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
  if (!w || uv_poll_start(&w->poll, w->events, http_on_poll)) http_end(easy, CURLE_OUT_OF_MEMORY);
  return 0;
}

static int l_gc(lua_State *L) {
  struct dr_http *http = luaL_checkudata(L, 1, HTTP);
  if (http->timer) uv_close((uv_handle_t *)http->timer, dr_free_handle);
  http->timer = NULL;
  if (http->multi) curl_multi_cleanup(http->multi);
  http->multi = NULL;
  return 0;
}

static bool http_open(struct dr_http *http) {
  if (curl_global_init(CURL_GLOBAL_ALL)) return false;
  http->multi = curl_multi_init();
  if (!http->multi || !(http->timer = malloc(sizeof *http->timer))) return false;
  uv_timer_init(http->loop, http->timer);
  http->timer->data = http;
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, http_want_socket);
  curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, http_want_timer);
  curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
  return true;
}

struct dr_http *dr_http_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
  struct dr_http *http = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (http) return http;
  http = lua_newuserdatauv(L, sizeof *http, 0);
  *http = (struct dr_http){.loop = &dr_runtime_get(L)->loop};
  dr_set_gc(L, HTTP, l_gc);
  if (!http_open(http)) luaL_error(L, "cannot make an HTTP client: out of memory");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
  return http;
}

uv_loop_t *dr_http_loop(struct dr_http *http) { return http->loop; }

int dr_http_add(struct dr_http *http, CURL *easy, void (*done)(void *arg, CURLcode result), void *arg) {
  struct pending *p = malloc(sizeof *p);
  if (!p) return -ENOMEM;
  *p = (struct pending){done, arg};
  curl_easy_setopt(easy, CURLOPT_PRIVATE, p);
  if (curl_multi_add_handle(http->multi, easy) == CURLM_OK) return 0;
  free(p);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
  return -ENOMEM;
}

void dr_http_remove(struct dr_http *http, CURL *easy) {
  struct pending *p = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&p);
  if (http->multi) curl_multi_remove_handle(http->multi, easy);
  curl_easy_cleanup(easy);
  free(p);
}

// As libcurl opens it, but not for the children of this process: one of them would keep a connection open that we
// closed.
static curl_socket_t http_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address) {
  (void)arg, (void)purpose;
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  return fd < 0 ? CURL_SOCKET_BAD : fd;
}

int dr_http_prepare(CURL *easy, const struct dr_request_options *o, char *detail) {
  int failed = 0;
  failed |= curl_easy_setopt(easy, CURLOPT_URL, o->url);
  failed |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
  failed |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  failed |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
  failed |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  failed |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  failed |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, http_open_socket);
  if (o->unix_socket) failed |= curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
  if (!o->proxy) failed |= curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
  if (o->tls.ca) failed |= curl_easy_setopt(easy, CURLOPT_CAINFO, o->tls.ca);
  if (o->tls.cert) failed |= curl_easy_setopt(easy, CURLOPT_SSLCERT, o->tls.cert);
  if (o->tls.key) failed |= curl_easy_setopt(easy, CURLOPT_SSLKEY, o->tls.key);
  if (o->tls.insecure) {
    failed |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    failed |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  return failed ? -ENOMEM : 0;
}

int dr_http_error(struct dr_error *e, CURL *easy, CURLcode code, const char *who, const char *detail) {
  static const struct {
    CURLcode code;
    const char *kind, *what;
  } known[] = {
      {CURLE_COULDNT_CONNECT, "unreachable", "cannot reach"},
      {CURLE_COULDNT_RESOLVE_HOST, "unreachable", "cannot find"},
      {CURLE_OPERATION_TIMEDOUT, "timeout", "no answer in time from"},
      {CURLE_URL_MALFORMAT, "invalid", "bad address of"},
      {CURLE_WEIRD_SERVER_REPLY, "protocol", "not HTTP from"},
      {CURLE_HTTP2, "protocol", "not HTTP/1.1 from"},
      {CURLE_UNSUPPORTED_PROTOCOL, "protocol", "not HTTP/1.1 from"},
      {CURLE_BAD_CONTENT_ENCODING, "protocol", "broken content encoding from"},
      {CURLE_PEER_FAILED_VERIFICATION, "unreachable", "cannot trust the certificate of"},
      {CURLE_SSL_CONNECT_ERROR, "unreachable", "no TLS with"},
      {CURLE_SSL_CACERT_BADFILE, "unreachable", "cannot read the authority's certificate for"},
      {CURLE_SSL_CERTPROBLEM, "unreachable", "cannot use our certificate for"},
      {CURLE_OUT_OF_MEMORY, "system", "out of memory in a call to"},
  };
  const char *kind = "unreachable", *what = "lost the connection to";
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (known[i].code == code) kind = known[i].kind, what = known[i].what;
  }
  long os = 0;
  curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os);
  const char *why = code == CURLE_COULDNT_CONNECT && os ? strerror((int)os)
                    : *detail                           ? detail
                                                        : curl_easy_strerror(code);
  return dr_fail(e, kind, (int)code, "%s %s: %s", what, who, why);
}
