// The Engine API as data: what every endpoint takes and what it answers. It knows no connection; docker.c walks it.
#ifndef DOCKRUN_ENDPOINTS_H
#define DOCKRUN_ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>

enum dr_body {
  DR_BODY_NONE,
  DR_BODY_JSON,
  DR_BODY_BYTES,  // a tar archive
};

enum dr_answer {
  DR_ANSWER_NONE,     // the status says it all
  DR_ANSWER_STATE,    // the same, and 304 says that it was so already
  DR_ANSWER_JSON,     // one document
  DR_ANSWER_TEXT,     // plain text
  DR_ANSWER_HEADERS,  // no body: X-Docker-Container-Path-Stat
  // From here on the answer is a stream.
  DR_ANSWER_BYTES,   // a tar archive
  DR_ANSWER_LINES,   // JSON documents one after the other, as things happen
  DR_ANSWER_FRAMES,  // stdout and stderr in frames, or as they are where the container has a TTY
  DR_ANSWER_HIJACK,  // the connection itself, both ways, carrying the same
};

struct dr_endpoint {
  const char *name;    // what a script calls it
  const char *method;  // "GET"
  const char *path;    // as the specification writes it, without the version: "/containers/{id}/stop"
  const char *query;   // names with a blank between; "signal@1.42" came with API 1.42; "" for none
  enum dr_body body;
  enum dr_answer answer;
  bool auth;  // registry credentials go along in X-Registry-Auth
};

// Sorted by name (as strcmp sorts).
extern const struct dr_endpoint dr_endpoints[];
extern const size_t dr_endpoints_count;

// The row of that name, or NULL.
const struct dr_endpoint *dr_endpoint_find(const char *name);

#endif
