// Bytes that come and go while a fiber waits: what a running HTTP request and an upgraded connection have in common.
#ifndef DOCKRUN_CHANNEL_H
#define DOCKRUN_CHANNEL_H

#include <stddef.h>

#include "data/buffer.h"
#include "data/error.h"
#include "runtime/runtime.h"

// With more unread bytes than this, the peer has to wait; with more bytes that the peer did not take, the writer.
enum { DR_HIGH_WATER = 256 * 1024 };

struct dr_channel {
  struct dr_buffer in, out;
  size_t high;    // water mark of `in`: above DR_HIGH_WATER while the reader needs a larger piece; 0 is DR_HIGH_WATER
  bool ended;     // nothing more will come in; `failed` says whether that is an error
  bool failed;    // error says how
  bool writable;  // it has a peer to write to
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

void dr_channel_end(struct dr_channel *c);

#endif
