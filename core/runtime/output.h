// What the process writes on its descriptors 1 and 2. Every byte arrives, or an error is kept: a pipe that is full for
// now, a partial write and a descriptor that another process made non-blocking lose nothing. The flags of the
// descriptors stay as they were found, since other processes share them.
#ifndef DOCKRUN_OUTPUT_H
#define DOCKRUN_OUTPUT_H

#include "runtime/channel.h"

// One place that bytes go to. Both descriptors have the same if they are one pipe or one terminal, so that the order
// of what is written is kept.
struct dr_sink {
  int fd;     // the descriptor, or what it refers to opened anew, so that a write does not block; -1: not yet
  int ready;  // an epoll descriptor that holds fd and is readable while fd takes bytes; -1: fd always does
  bool is_socket, may_block;
  struct dr_buffer pending;
  int error;       // errno of the write that failed; what is written after it is dropped
  bool counts;     // its failure is the command's failure: fd is 1, or dr_output.ends
  uv_poll_t poll;  // of `ready`, on the loop of dr_output.rt; active while something is pending
  bool has_poll;
  int gone;  // an epoll descriptor that is readable when the reader of fd is gone; -1: not watched
  uv_poll_t gone_poll;
};

// What happens when the reader is gone. The script ends as if by SIGPIPE.
enum dr_ends {
  DR_ENDS_NEVER,  // what it writes is dropped
  DR_ENDS_LATER,  // with the first write after the one that failed: a script may handle the error itself
  DR_ENDS_AT_WRITE,
  DR_ENDS_AT_ONCE,  // before it writes anything
};

struct dr_output {
  struct dr_sink sinks[2];
  struct dr_runtime *rt;  // whose loop writes what is pending; NULL: each write waits
  struct dr_room *waiting;
  bool owned;  // by its runtime, and freed with it
  enum dr_ends ends;
  bool exiting;  // the process is about to end: each write waits
};

// Opens /dev/null for each of the descriptors 0 to 2 that is closed, so that no other file gets its number. 0 or
// -errno.
int dr_open_standard(void);

// The first of the descriptors 0 to 2 that is closed, or -1.
int dr_closed_standard(void);

// The output of this process, with C's stdout and stderr on it. For the executable, before anything is written.
struct dr_output *dr_output_of_process(void);

// Connects the output with a runtime: from now on its loop writes what is pending. The end of the runtime undoes that.
void dr_output_attach(struct dr_output *o, struct dr_runtime *rt);

// The place that the descriptor's bytes go to.
struct dr_sink *dr_output_sink(struct dr_output *o, int fd);

// What happens from now on when the reader is gone.
void dr_output_end_with_reader(struct dr_output *o, enum dr_ends ends);

// Adds bytes to what is to be written, and writes what the descriptor takes now. 0 or -errno; never waits.
int dr_output_write(struct dr_output *o, struct dr_sink *s, const char *data, size_t len);

// Waits until everything is written, or until a signal. 0, or -errno of a failed write that counts.
int dr_output_drain(struct dr_output *o);

// A fiber that waits until little is pending in a sink: its functions for dr_wait.
struct dr_room {
  struct dr_wait wait;
  struct dr_output *output;
  struct dr_sink *sink;
  struct dr_room *next;
};

void dr_room_enter(struct dr_wait *w);
void dr_room_leave(struct dr_wait *w);
bool dr_has_room(const struct dr_sink *s);

// What a descriptor refers to, opened again and non-blocking, so that the flags that other processes share stay as they
// are; -1 if that is impossible: a file, whose position is shared too, a socket, a descriptor of another user.
int dr_reopen(int fd, int mode);

// A descriptor that is readable while fd is ready; -1 if fd always is.
int dr_readiness(int fd, unsigned events);

// Not connected to any runtime; NULL if memory ran out.
struct dr_output *dr_output_new(void);

#endif
