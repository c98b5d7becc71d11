// Text that goes into a request's line and headers.
#ifndef DOCKRUN_URL_H
#define DOCKRUN_URL_H

#include <lauxlib.h>
#include <stdbool.h>

// Pushes text percent-encoded (RFC 3986, unreserved characters stay; '/', ':' and '@' too if `path`).
void dr_push_escaped(lua_State *L, const char *text, size_t len, bool path);

// Pushes the base64 of data, in the URL alphabet if `url` (RFC 4648, sections 4 and 5, padded).
void dr_push_base64(lua_State *L, const char *data, size_t len, bool url);

// Decodes base64 text (either alphabet) and pushes the bytes, or returns false and pushes nothing.
bool dr_push_unbase64(lua_State *L, const char *text, size_t len);

#endif
