// libFuzzer: the readers of streams (core/http/frames.c). What comes out must not depend on how the bytes were cut on
// the way, and must be within them.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "http/frames.h"

struct output {
  char *data;
  size_t len, size;
  bool failed;
};

static void add(struct output *o, const void *data, size_t len) {
  if (o->size - o->len < len) {
    o->size = 2 * (o->size + len);
    o->data = realloc(o->data, o->size);
    if (!o->data) abort();
  }
  memcpy(o->data + o->len, data, len);
  o->len += len;
}

// Takes every complete item from the front of data; returns the number of bytes used.
static size_t take_all(bool lines, struct dr_frames *frames, const char *data, size_t len, struct output *o) {
  struct dr_error e;
  size_t at = 0;
  for (;;) {
    const char *item = NULL;
    size_t n = 0;
    int64_t used = lines ? dr_line_next(data + at, len - at, &item, &n, &e)
                         : dr_frame_next(frames, data + at, len - at, &item, &n, &e);
    if (used < 0) {
      if (used != -EPROTO || !memchr(e.message, '\0', sizeof e.message)) abort();
      o->failed = true;
    }
    if (used <= 0) return at;
    if ((size_t)used > len - at) abort();
    if (n) {
      if (item < data + at || item + n > data + at + used) abort();
      if (!lines) add(o, &frames->stream, 1);
      for (size_t i = 0; i < n; i++) {  // a frame's pieces may be cut anywhere: compare single bytes
        if (!lines && i) add(o, &frames->stream, 1);
        add(o, item + i, 1);
      }
      if (lines) add(o, "\n", 1);
    }
    at += (size_t)used;
  }
}

// Passes the bytes on in pieces of `step` and keeps unused bytes, as a stream does.
static struct output read_in(bool lines, const char *data, size_t len, size_t step) {
  struct output o = {0};
  struct dr_frames frames = {0};
  size_t used = 0;
  for (size_t end = step < len ? step : len; !o.failed; end = end + step < len ? end + step : len) {
    // A copy of its own, so that the sanitizer sees a read past its end.
    char *copy = malloc(end - used + 1);
    if (!copy) abort();
    memcpy(copy, data + used, end - used);
    copy = realloc(copy, end - used ? end - used : 1);
    used += take_all(lines, &frames, copy, end - used, &o);
    free(copy);
    if (end == len) break;
  }
  return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (size < 2) return 0;
  bool lines = bytes[0] & 1;
  size_t step = 1 + bytes[1] % 64;
  const char *data = (const char *)bytes + 2;
  struct output whole = read_in(lines, data, size - 2, size), cut = read_in(lines, data, size - 2, step);
  if (whole.failed != cut.failed || whole.len != cut.len || (whole.len && memcmp(whole.data, cut.data, whole.len)))
    abort();
  free(whole.data);
  free(cut.data);
  return 0;
}
