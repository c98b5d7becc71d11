// The standard streams of the process, for fibers: dockrun.core.standard.
#ifndef DOCKRUN_STANDARD_H
#define DOCKRUN_STANDARD_H

#include "host/output.h"

// What a descriptor refers to, opened anew and non-blocking, so that the flags which other processes share stay as they
// are; -1 where that cannot be: a file, whose position is shared too, a socket, a descriptor of another user.
int dr_reopen(int fd, int mode);

// A descriptor that is readable while fd is ready; -1 where fd always is.
int dr_readiness(int fd, unsigned events);

// Wakes the fibers that wait for room in this sink.
void dr_room_wake(struct dr_output *o, struct dr_sink *s);

// Frees what the runtime's fibers read with. Once its loop is closed.
void dr_standard_free(struct dr_runtime *rt);

#endif
