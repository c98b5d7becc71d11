// A buffer that grows at its end and is read from its beginning.
#ifndef DOCKRUN_BUFFER_H
#define DOCKRUN_BUFFER_H

#include <stddef.h>

struct dr_buffer {
  char *data;
  size_t at, end, size;  // data[at..end) is in use
};

static inline size_t dr_buffer_len(const struct dr_buffer *b) { return b->end - b->at; }
// NULL if it never held anything.
static inline const char *dr_buffer_data(const struct dr_buffer *b) { return b->data ? b->data + b->at : NULL; }

int dr_buffer_add(struct dr_buffer *b, const void *data, size_t len);

void dr_buffer_drop(struct dr_buffer *b, size_t len);

void dr_buffer_free(struct dr_buffer *b);

#endif
