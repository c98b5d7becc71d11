// An error of the core: a kind for decisions in Lua, a code, and a sentence for a person.
#ifndef DOCKRUN_ERROR_H
#define DOCKRUN_ERROR_H

#include <lua.h>
#include <stdbool.h>

// kind is one of (a static string, compared by policy):
//   "engine"       the engine answered with an error; code is the HTTP status
//   "unreachable"  no connection to the engine; code is a libcurl code
//   "timeout"      a deadline passed
//   "cancelled"    the waiting fiber was cancelled
//   "protocol"     the peer sent something that is not the protocol
//   "system"       a system call failed; code is the errno
//   "invalid"      the caller's input is wrong
//   "taken"        a port belongs to someone else
//   "output"       what the process writes does not reach its reader; a person has heard of it already
//   "exhausted"    nothing left to hand out
struct dr_error {
  const char *kind;
  int code;
  char message[512];
};

// Fills e (which may be NULL) and returns -code, so that a failing function can end in `return dr_fail(…)`.
// code must be above 0.
int dr_fail(struct dr_error *e, const char *kind, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// dr_fail for a failed system call: kind "system", code errno, and ": <strerror>" after the message.
int dr_fail_errno(struct dr_error *e, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

// Pushes an error table {kind, message, status} whose tostring is its message; status is left out if it is 0. `message`
// has length len. Returns 1.
int dr_push_error_text(lua_State *L, const char *kind, int status, const char *message, size_t len);

// Pushes the sentence that an error value of any kind is to a person, worded as lua does; raises nothing, whatever
// __tostring does. Returns whether a traceback helps: an object with a text of its own says enough.
bool dr_push_sentence(lua_State *L, int idx);

// Pushes nil and the error table {kind, message, code}, for `return dr_return_error(L, &e)`. Returns 2.
int dr_return_error(lua_State *L, const struct dr_error *e);

#endif
