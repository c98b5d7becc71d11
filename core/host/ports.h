// Ports of the host, whichever process uses them: ports_host.c. The ports that this runtime holds are in ports.c.
#ifndef DOCKRUN_PORTS_H
#define DOCKRUN_PORTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "data/error.h"

// An address a port is published on. IPv4 is kept as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), so that one comparison serves
// both families. The wildcard, written 0.0.0.0 or ::, is all zero: it means every address of both families.
struct dr_address {
  struct in6_addr bits;
  char text[INET6_ADDRSTRLEN];
};

// The holder of a requested port. `name` is a noun phrase for a message, empty if the port is free.
struct dr_holder {
  char name[256];
  pid_t pid;  // 0 if unknown
};

// Reads IPv4 or IPv6 text. Fails with "invalid".
int dr_address_parse(struct dr_address *a, const char *text, struct dr_error *e);
// Whether a socket on one excludes a socket on the other: they are equal, or one of them is the wildcard.
bool dr_address_overlaps(const struct dr_address *a, const struct dr_address *b);

// Asks the kernel whether tcp and udp of a port can be bound, as the engine will bind them: 0, or -code.
// -EADDRINUSE means taken; *protocol is then "tcp" or "udp", and e is not filled (naming the holder is costly).
int dr_port_probe(const struct dr_address *a, int port, const char **protocol, struct dr_error *e);

// Holds a port number against every other dockrun process of this network namespace: a descriptor that is the hold
// until it is closed, or -code. -EADDRINUSE: another process has the hold; e is then not filled. The store's *lease* of
// a port is another thing: it outlives the process, and only processes with the same state directory see it.
int dr_port_hold(int port, struct dr_error *e);

// Names the holder of a port: from the hold if protocol is NULL, else from the kernel's socket table of that protocol.
void dr_port_holder(const struct dr_address *a, int port, const char *protocol, struct dr_holder *holder);

// Fills e (kind "taken") from a holder. Returns -EADDRINUSE.
int dr_port_taken(const struct dr_address *a, int port, const struct dr_holder *holder, struct dr_error *e);

#endif
