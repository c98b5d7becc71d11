#include "data/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 1 << 30, KEPT = 1 << 20 };  // bytes; an empty buffer that is larger than KEPT is freed

int dr_buffer_add(struct dr_buffer *b, const void *data, size_t len) {
  if (!len) return 0;
  if (b->size - b->end < len && b->at) {
    memmove(b->data, b->data + b->at, dr_buffer_len(b));
    b->end -= b->at;
    b->at = 0;
  }
  if (len > LARGEST - dr_buffer_len(b)) return -ENOMEM;
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

void dr_buffer_drop(struct dr_buffer *b, size_t len) {
  b->at += len;
  if (b->at < b->end) return;
  b->at = b->end = 0;
  if (b->size <= KEPT) return;
  free(b->data);
  *b = (struct dr_buffer){0};
}

void dr_buffer_free(struct dr_buffer *b) {
  free(b->data);
  *b = (struct dr_buffer){0};
}
