// dockrun whose memory runs out at a chosen allocation: DOCKRUN_OOM=N lets the Nth allocation of Lua and of core/ fail,
// and N:K the K from there on. Scripts have a global `oom` to do the same: oom.fail(n, k), oom.calls().
//
// Linked with --wrap (see ld(1)), so that the libraries' own allocations never fail: their reports of allocated
// bytes are made here instead.
#include <curl/curl.h>
#include <dlfcn.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "dockrun.h"

static unsigned long calls, first, count;

static int runs_out(void) {
  calls++;
  return first && calls >= first && calls - first < count;
}

static void fail_at(unsigned long n, unsigned long k) {
  calls = 0;
  first = n;
  count = k;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size) { return runs_out() ? NULL : __real_malloc(size); }

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) { return runs_out() ? NULL : __real_calloc(n, size); }

void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size) { return runs_out() ? NULL : __real_realloc(block, size); }

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text) { return runs_out() ? NULL : __real_strdup(text); }

CURL *__real_curl_easy_init(void);
CURL *__wrap_curl_easy_init(void) { return runs_out() ? NULL : __real_curl_easy_init(); }

CURLM *__real_curl_multi_init(void);
CURLM *__wrap_curl_multi_init(void) { return runs_out() ? NULL : __real_curl_multi_init(); }

CURLMcode __real_curl_multi_add_handle(CURLM *multi, CURL *easy);
CURLMcode __wrap_curl_multi_add_handle(CURLM *multi, CURL *easy) {
  return runs_out() ? CURLM_OUT_OF_MEMORY : __real_curl_multi_add_handle(multi, easy);
}

struct curl_slist *__real_curl_slist_append(struct curl_slist *list, const char *text);
struct curl_slist *__wrap_curl_slist_append(struct curl_slist *list, const char *text) {
  return runs_out() ? NULL : __real_curl_slist_append(list, text);
}

int __real_uv_loop_init(uv_loop_t *loop);
int __wrap_uv_loop_init(uv_loop_t *loop) { return runs_out() ? UV_ENOMEM : __real_uv_loop_init(loop); }

int __real_uv_poll_init_socket(uv_loop_t *loop, uv_poll_t *handle, uv_os_sock_t socket);
int __wrap_uv_poll_init_socket(uv_loop_t *loop, uv_poll_t *handle, uv_os_sock_t socket) {
  return runs_out() ? UV_ENOMEM : __real_uv_poll_init_socket(loop, handle, socket);
}

// ---- the border --------------------------------------------------------------------------------

static int l_fail(lua_State *L) {
  fail_at((unsigned long)luaL_checkinteger(L, 1), (unsigned long)luaL_optinteger(L, 2, 1));
  return 0;
}

static int l_calls(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)calls);
  return 1;
}

static int give(lua_State *L) {
  static const luaL_Reg functions[] = {{"fail", l_fail}, {"calls", l_calls}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_setglobal(L, "oom");
  return 0;
}

// Memory that the libraries leak if Lua raises an error inside of them.
const char *__lsan_default_suppressions(void) { return "leak:/cjson.so\nleak:liblua5.4-luv.so\nleak:libuv.so\n"; }

// The leak checker knows a library by its name only as long as it is loaded.
static void keep_cjson(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_dostring(L, "return package.searchpath('cjson', package.cpath)");
  if (lua_isstring(L, -1)) dlopen(lua_tostring(L, -1), RTLD_LAZY | RTLD_NODELETE);
  lua_close(L);
}

int main(int argc, char **argv) {
  char why[256];
  unsigned long n = 0, k = 1;
  const char *at = getenv("DOCKRUN_OOM");
  keep_cjson();
  if (at) sscanf(at, "%lu:%lu", &n, &k);
  fail_at(n, k);
  dockrun *d = dockrun_open(why, sizeof why);
  if (!d) {
    fprintf(stderr, "dockrun: %s\n", why);
    return 4;
  }
  lua_pushcfunction(dockrun_lua(d), give);
  if (lua_pcall(dockrun_lua(d), 0, 0, 0)) lua_settop(dockrun_lua(d), 0);
  dockrun_catch_signals(d);
  int code = dockrun_run(d, argc, argv);
  dockrun_close(d);
  const char *path = getenv("DOCKRUN_OOM_CALLS");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) fprintf(file, "%lu\n", calls);
  if (file) fclose(file);
  return code;
}
