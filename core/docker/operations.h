// The Engine API as data: the parameters and the answer of each operation. It knows no connection; docker.c reads it.
#ifndef DOCKRUN_OPERATIONS_H
#define DOCKRUN_OPERATIONS_H

#include <stdbool.h>
#include <stddef.h>

enum dr_body {
  DR_BODY_NONE,
  DR_BODY_JSON,
  DR_BODY_BYTES,  // a tar archive
};

enum dr_answer {
  DR_ANSWER_NONE,     // only the status
  DR_ANSWER_STATE,    // only the status; 304: the container was in that state before
  DR_ANSWER_JSON,     // one document
  DR_ANSWER_TEXT,     // plain text
  DR_ANSWER_HEADERS,  // no body: X-Docker-Container-Path-Stat
  // From here on the answer is a stream.
  DR_ANSWER_BYTES,   // a tar archive
  DR_ANSWER_LINES,   // JSON documents, one after the other
  DR_ANSWER_FRAMES,  // stdout and stderr in frames, or plain bytes if the container has a TTY
  DR_ANSWER_HIJACK,  // the connection itself in both directions, with the same content
};

// Special properties of an operation.
enum dr_operation_flags {
  DR_AUTH = 1,          // registry credentials are sent in X-Registry-Auth
  DR_UNVERSIONED = 2,   // its path is the same in each version of the API
  DR_ENDLESS = 4,       // its answer may take any time: no time-out unless the caller gives one
  DR_ENGINE_WAITS = 8,  // the engine itself waits for as many seconds as the parameter "t" says
  DR_SLASHES = 16,      // its path parameter is the name of an image, which may have slashes
};

struct dr_operation {
  const char *name;    // of the method of an engine in Lua
  const char *method;  // "GET"
  const char *path;    // as the specification writes it, without the version: "/containers/{id}/stop"
  const char *query;   // names, separated by blanks; "signal@1.42" came with API 1.42; "" for none
  enum dr_body body;
  enum dr_answer answer;
  unsigned flags;  // of enum dr_operation_flags
};

// Sorted by name (as strcmp sorts).
extern const struct dr_operation dr_operations[];
extern const size_t dr_operations_count;

#endif
