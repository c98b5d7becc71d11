// The rooms of dockrun.core.docker: docker.c (engines and their methods) -> call.c (a call's way; negotiate.c comes
// before it, upload.c sends its body) -> answer.c (its result).
#ifndef DOCKRUN_ENGINE_H
#define DOCKRUN_ENGINE_H

#include "docker/operations.h"
#include "http/http.h"

struct dr_engine {
  char *url;          // without a slash at its end
  char *unix_socket;  // or NULL
  char *endpoint;     // as given
  char who[160];
  struct dr_tls tls;  // strings owned
  int api;            // minor version, 0 until negotiated
  bool asking;        // a call asks for it just now; the listeners wait for what that hears
  struct dr_listener *listeners;
  double timeout;
};

// User values: two functions of the caller, or nil; and the error of the last negotiation that failed.
enum { DR_ENGINE_TRACE = 1, DR_ENGINE_CHECK, DR_ENGINE_FAILURE };

// The stack of a call. The body is JSON text, a string, a function or nil; the deadline,
// of the negotiation or of an upload, a time on the clock of uv_hrtime or nil; the scope, of the same two, a value to
// be closed.
enum { AT_ENGINE = 1, AT_OPTIONS, AT_PATH, AT_BODY, AT_EXCHANGE, AT_DEADLINE, AT_SCOPE };

// Sends the call that is on the stack, and negotiates the API version first if that was not done.
int dr_call(lua_State *L, const struct dr_operation *row);

// Calls dr_call_on as soon as the version is known.
int dr_negotiate(lua_State *L, const struct dr_operation *row);
int dr_call_on(lua_State *L, const struct dr_operation *row);

// Feeds the request at AT_EXCHANGE with what the function at AT_BODY gives, then waits for the answer.
int dr_upload(lua_State *L, const struct dr_operation *row);

// Seconds until the deadline, at least 0; below 0 if there is none.
double dr_time_left(lua_State *L);

struct dr_request_options dr_options_for(const struct dr_engine *e, const char *method, const char *url);

// The next name in a row's query list: its length, and the API version since which it exists (0: always).
const char *dr_next_query(const char **list, size_t *len, int *since);

// What a streaming row gives for these options: `stream = false` asks for one document, `Detach` for no connection.
enum dr_answer dr_answer_of(lua_State *L, const struct dr_operation *row);

// The end of a call (continuations; ctx is the row): the request or connection at AT_EXCHANGE becomes the results.
int dr_answered(lua_State *L, int status, lua_KContext ctx);
int dr_upgraded(lua_State *L, int status, lua_KContext ctx);

// nil and the error of an exchange that failed. Of one with an engine that has not been heard yet it says more.
// Returns 2.
int dr_failed(lua_State *L, const struct dr_engine *e, struct dr_error *error);

// nil and the engine's refusal: its `message` if the body is its JSON, otherwise the body. Returns 2.
int dr_refused(lua_State *L, const struct dr_engine *e, const struct dr_operation *row, long status,
               const struct dr_buffer *headers, const struct dr_buffer *in);

#endif
