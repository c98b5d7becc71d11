// The two forms in which the engine streams: multiplexed log frames, and JSON documents a line each.
#ifndef DOCKRUN_FRAMES_H
#define DOCKRUN_FRAMES_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/error.h"

// Engine API, "Attach to a container", stream format: 8 bytes {stream, 0, 0, 0, size (big endian)}, then size bytes.
// Stream is 0 stdin, 1 stdout, 2 stderr, 3 an error of the engine itself.
struct dr_frames {
  uint8_t stream;
  uint32_t left;  // bytes of the current frame that were not handed out
};

extern const char *const dr_frame_streams[];  // their names

// Takes one piece of a frame from the front of data. *piece and *piece_len are its payload, the current stream is in f.
// A large frame comes in several pieces, so none is ever kept. Returns the bytes used up, 0 if data holds no whole
// piece, or -EPROTO with e filled if it is not a frame.
int64_t dr_frame_next(struct dr_frames *f, const char *data, size_t len, const char **piece, size_t *piece_len,
                      struct dr_error *e);

enum { DR_MAX_LINE = 4 * 1024 * 1024 };

// Finds the next line: *line and *line_len without its line break, empty lines skipped. Returns the bytes used up, 0
// if there is no whole line, or -EPROTO if it grows past DR_MAX_LINE.
int64_t dr_line_next(const char *data, size_t len, const char **line, size_t *line_len, struct dr_error *e);

int luaopen_dockrun_core_frames(lua_State *L);

#endif
