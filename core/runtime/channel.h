// Bytes that come and go while a fiber waits: what a running HTTP request and an upgraded connection have in common.
#ifndef DOCKRUN_CHANNEL_H
#define DOCKRUN_CHANNEL_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "data/error.h"
#include "runtime/runtime.h"

struct dr_buffer {
  char *data;
  size_t at, end, size;  // data[at..end) is in use
};

enum { DR_LARGEST_BUFFER = 1 << 30, DR_KEPT_BUFFER = 1 << 20 };  // a larger one is let go of when it is empty

static inline size_t dr_buffer_len(const struct dr_buffer *b) { return b->end - b->at; }
// NULL where nothing was ever in it.
static inline const char *dr_buffer_data(const struct dr_buffer *b) { return b->data ? b->data + b->at : NULL; }

static inline int dr_buffer_add(struct dr_buffer *b, const void *data, size_t len) {
  if (!len) return 0;
  if (b->size - b->end < len && b->at) {
    memmove(b->data, b->data + b->at, dr_buffer_len(b));
    b->end -= b->at;
    b->at = 0;
  }
  if (len > DR_LARGEST_BUFFER - dr_buffer_len(b)) return -ENOMEM;
  if (b->size - b->end < len) {
    size_t size = b->size ? b->size : 4096;
    while (size - b->end < len) size *= 2;
    char *grown = realloc(b->data, size);
    if (!grown) return -ENOMEM;
    b->data = grown;
    b->size = size;
  }
  memcpy(b->data + b->end, data, len);
  b->end += len;
  return 0;
}

static inline void dr_buffer_drop(struct dr_buffer *b, size_t len) {
  b->at += len;
  if (b->at < b->end) return;
  b->at = b->end = 0;
  if (b->size <= DR_KEPT_BUFFER) return;
  free(b->data);
  *b = (struct dr_buffer){0};
}

static inline void dr_buffer_free(struct dr_buffer *b) {
  free(b->data);
  *b = (struct dr_buffer){0};
}

// Above this many bytes that nobody has read, the peer is made to wait; above it that the peer has not taken, the
// writer.
enum { DR_HIGH_WATER = 256 * 1024 };

struct dr_channel {
  struct dr_buffer in, out;
  size_t high;    // water mark of `in`: above DR_HIGH_WATER while the reader needs a larger piece; 0 is DR_HIGH_WATER
  bool ended;     // nothing more will come in; `failed` tells why where that is an error
  bool failed;    // error says how
  bool writable;  // there is somebody to write to
  struct dr_error error;
  struct dr_wait reader, writer;
  void (*more)(struct dr_channel *c);        // room in `in`: let the peer go on
  void (*flush)(struct dr_channel *c);       // something in `out`
  void (*half_close)(struct dr_channel *c);  // nothing more will be written
  void (*close)(struct dr_channel *c);       // gives everything up; idempotent
};

// Whether the peer has to wait.
static inline bool dr_channel_full(const struct dr_channel *c) {
  return dr_buffer_len(&c->in) >= (c->high ? c->high : DR_HIGH_WATER);
}

static inline struct dr_channel *dr_channel_of_reader(struct dr_wait *w) {
  return (struct dr_channel *)((char *)w - offsetof(struct dr_channel, reader));
}

static inline struct dr_channel *dr_channel_of_writer(struct dr_wait *w) {
  return (struct dr_channel *)((char *)w - offsetof(struct dr_channel, writer));
}

static inline void dr_channel_end(struct dr_channel *c) {
  c->ended = true;
  dr_wake(&c->reader);
  dr_wake(&c->writer);
}

#endif
