// What a streaming call gives to Lua: bytes, JSON documents or log frames, read as they come.
#ifndef DOCKRUN_STREAM_H
#define DOCKRUN_STREAM_H

#include "runtime/channel.h"

enum dr_stream_kind { DR_STREAM_BYTES, DR_STREAM_LINES, DR_STREAM_FRAMES, DR_STREAM_RAW };

// Replaces the request or connection at the top of the stack, whose channel and headers these are, by a stream over it.
int dr_stream_push(lua_State *L, struct dr_channel *channel, const struct dr_buffer *headers, enum dr_stream_kind kind);

// Lets the function at the top, which is popped, see each document of the stream below it: check(call, document) may
// return what is wrong with it, and then that is read as an error of kind "protocol". `call` lives as long as the
// program.
void dr_stream_check(lua_State *L, const char *call);

#endif
