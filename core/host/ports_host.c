// Ports of the host: the kernel's probe, the hold between dockrun processes, and the name of a holder.
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/ports.h"

// ---- addresses -------------------------------------------------------------------------------

static void address_map_v4(struct in6_addr *bits, uint32_t v4) {
  *bits = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
  memcpy(&bits->s6_addr[12], &v4, sizeof v4);
}

static bool address_is_any(const struct dr_address *a) { return IN6_IS_ADDR_UNSPECIFIED(&a->bits); }

int dr_address_parse(struct dr_address *a, const char *text, struct dr_error *e) {
  struct in_addr v4;
  if (inet_pton(AF_INET, text, &v4) == 1) {
    address_map_v4(&a->bits, v4.s_addr);
  } else if (inet_pton(AF_INET6, text, &a->bits) != 1) {
    return dr_fail(e, "invalid", EINVAL,
                   "'%s' is not an IPv4 or IPv6 address; write it in digits, without a name or a port", text);
  }
  bool is_v4 = IN6_IS_ADDR_V4MAPPED(&a->bits);
  memcpy(&v4, &a->bits.s6_addr[12], sizeof v4);
  if (is_v4 && v4.s_addr == INADDR_ANY) a->bits = in6addr_any;
  if (address_is_any(a)) {
    strcpy(a->text, "0.0.0.0");
  } else {
    inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? (void *)&v4 : &a->bits, a->text, sizeof a->text);
  }
  return 0;
}

static bool address_bits_overlap(const struct in6_addr *a, const struct in6_addr *b) {
  return IN6_ARE_ADDR_EQUAL(a, b) || IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_UNSPECIFIED(b);
}

bool dr_address_overlaps(const struct dr_address *a, const struct dr_address *b) {
  return address_bits_overlap(&a->bits, &b->bits);
}

// ---- the kernel's probe ----------------------------------------------------------------------

static int port_bind(int family, int type, const struct in6_addr *bits, int port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = *bits};
  // The last four bytes of a mapped address are the IPv4 address; those of the wildcard are INADDR_ANY.
  memcpy(&v4.sin_addr, &bits->s6_addr[12], sizeof v4.sin_addr);
  int fd = socket(family, type | SOCK_CLOEXEC, 0), on = 1, rc = 0;
  if (fd < 0) return -errno;
  // For tcp it lets TIME_WAIT pass, as in the engine's proxy. For udp it would share the port with another program that
  // set it.
  if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd, family == AF_INET ? (void *)&v4 : &v6, family == AF_INET ? sizeof v4 : sizeof v6) < 0 ||
      (type == SOCK_STREAM && listen(fd, 1) < 0))
    rc = -errno;
  close(fd);
  return rc;
}

int dr_port_probe(const struct dr_address *a, int port, const char **protocol, struct dr_error *e) {
  static const struct {
    const char *protocol;
    int family, type;
  } sockets[] = {{"tcp", AF_INET, SOCK_STREAM},
                 {"udp", AF_INET, SOCK_DGRAM},
                 {"tcp", AF_INET6, SOCK_STREAM},
                 {"udp", AF_INET6, SOCK_DGRAM}};
  bool any = address_is_any(a);
  int own_family = IN6_IS_ADDR_V4MAPPED(&a->bits) ? AF_INET : AF_INET6;
  for (size_t i = 0; i < sizeof sockets / sizeof *sockets; i++) {
    if (!any && sockets[i].family != own_family) continue;
    int rc = port_bind(sockets[i].family, sockets[i].type, &a->bits, port);
    bool no_ipv6 = rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL;
    if (rc == 0 || (any && sockets[i].family == AF_INET6 && no_ipv6)) continue;
    *protocol = sockets[i].protocol;
    if (rc == -EADDRINUSE) return rc;
    const char *advice = rc == -EADDRNOTAVAIL ? " (the address must be one of this host's)"
                         : rc == -EACCES      ? " (ports below net.ipv4.ip_unprivileged_port_start need root)"
                                              : "";
    return dr_fail_errno(e, -rc, "cannot bind %s port %d on %s%s", *protocol, port, a->text, advice);
  }
  return 0;
}

// ---- the hold between dockrun processes -----------------------------------------------------

// The hold is a listening socket named "\0dockrun.port.<port>" in the abstract unix namespace (unix(7)). The name is
// scoped by the network namespace exactly as ports are, is taken atomically, and ends with its process in any case. It
// is per port number, for all addresses: another process may then be refused a port that it could have had on another
// address. That costs nothing while thousands are free, and no order of wildcard and address can be wrong. The
// addresses of one allocator share the hold of a port.
static socklen_t port_hold_name(struct sockaddr_un *un, int port) {
  *un = (struct sockaddr_un){.sun_family = AF_UNIX};
  int n = snprintf(un->sun_path + 1, sizeof un->sun_path - 1, "dockrun.port.%d", port);
  return offsetof(struct sockaddr_un, sun_path) + 1 + n;
}

int dr_port_hold(int port, struct dr_error *e) {
  struct sockaddr_un un;
  socklen_t len = port_hold_name(&un, port);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), code;
  // A process that connects learns our pid from the kernel only if the socket listens.
  if (fd >= 0 && bind(fd, (struct sockaddr *)&un, len) == 0 && listen(fd, 16) == 0) return fd;
  code = errno;
  if (fd >= 0) close(fd);
  if (code == EADDRINUSE) return -code;
  bool full = code == EMFILE || code == ENFILE;
  return dr_fail_errno(e, code, "cannot hold port %d%s", port,
                       full ? " (each hold takes one descriptor; raise the limit, ulimit -n)" : "");
}

// ---- the holder -------------------------------------------------------------------------------

// The inode of a socket in a table of /proc/net (proc(5)), or 0. A socket in TIME_WAIT has none.
static unsigned long port_inode(const char *table, const struct dr_address *a, int port) {
  char path[64], line[512], hex[33];
  unsigned long inode, found = 0;
  unsigned local, word;
  snprintf(path, sizeof path, "/proc/net/%s", table);
  FILE *f = fopen(path, "re");
  while (f && !found && fgets(line, sizeof line, f)) {
    if (sscanf(line, "%*d: %32[0-9A-Fa-f]:%x %*s %*s %*s %*s %*s %*s %*s %lu", hex, &local, &inode) != 3) continue;
    struct in6_addr bits = in6addr_any;
    size_t words = strlen(hex) / 8;  // 1 or 4 words of 32 bits, each printed in the host's byte order
    for (size_t i = 0; i < words; i++) {
      sscanf(hex + 8 * i, "%8x", &word);
      memcpy(&bits.s6_addr[4 * i], &word, sizeof word);
    }
    if (words == 1 && (memcpy(&word, bits.s6_addr, sizeof word), word != INADDR_ANY)) address_map_v4(&bits, word);
    if ((int)local == port && address_bits_overlap(&bits, &a->bits)) found = inode;
  }
  if (f) fclose(f);
  return found;
}

static unsigned long port_hold_inode(int port) {
  char line[512], name[128], wanted[64];
  unsigned long inode, found = 0;
  snprintf(wanted, sizeof wanted, "@dockrun.port.%d", port);
  FILE *f = fopen("/proc/net/unix", "re");
  while (f && !found && fgets(line, sizeof line, f))
    if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu %127s", &inode, name) == 2 && strcmp(name, wanted) == 0)
      found = inode;
  if (f) fclose(f);
  return found;
}

static bool has_socket(const char *pid, unsigned long inode) {
  char path[300], wanted[40], target[40];
  snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
  snprintf(path, sizeof path, "/proc/%s/fd", pid);
  DIR *dir = opendir(path);
  bool found = false;
  for (struct dirent *d; dir && !found && (d = readdir(dir));) {
    ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof target - 1);
    if (n <= 0) continue;
    target[n] = '\0';
    found = strcmp(target, wanted) == 0;
  }
  if (dir) closedir(dir);
  return found;
}

static pid_t pid_of_inode(unsigned long inode) {
  DIR *dir = inode ? opendir("/proc") : NULL;
  pid_t pid = 0;
  for (struct dirent *d; dir && !pid && (d = readdir(dir));)
    if (isdigit((unsigned char)d->d_name[0]) && has_socket(d->d_name, inode)) pid = atoi(d->d_name);
  if (dir) closedir(dir);
  return pid;
}

// A connection to the hold tells the holder's pid, for any user. The holder accepts none, so after a while its
// queue is full; then the socket tables must do.
static pid_t port_hold_pid(int port) {
  struct sockaddr_un un;
  struct ucred peer = {0};
  socklen_t len = port_hold_name(&un, port), size = sizeof peer;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&un, len) == 0) getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
  if (fd >= 0) close(fd);
  return peer.pid > 0 ? peer.pid : pid_of_inode(port_hold_inode(port));
}

static void process_name(pid_t pid, char name[17]) {
  char path[64];
  strcpy(name, "?");
  snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
  FILE *f = fopen(path, "re");
  if (!f) return;
  if (fscanf(f, "%16[^\n]", name) != 1) strcpy(name, "?");
  fclose(f);
}

void dr_port_holder(const struct dr_address *a, int port, const char *protocol, struct dr_holder *holder) {
  char name[17], table[8];
  if (!protocol) {
    holder->pid = port_hold_pid(port);
    snprintf(holder->name, sizeof holder->name,
             holder->pid == getpid() ? "another allocator of this process (pid %d)"
             : holder->pid           ? "another dockrun process (pid %d)"
                                     : "another dockrun process",
             (int)holder->pid);
    return;
  }
  snprintf(table, sizeof table, "%s6", protocol);
  unsigned long inode = port_inode(protocol, a, port);
  holder->pid = pid_of_inode(inode ? inode : port_inode(table, a, port));
  if (holder->pid) {
    process_name(holder->pid, name);
    snprintf(holder->name, sizeof holder->name, "process %s (pid %d)", name, (int)holder->pid);
  } else {
    snprintf(holder->name, sizeof holder->name, "the kernel (protocol %s)", protocol);
  }
}

int dr_port_taken(const struct dr_address *a, int port, const struct dr_holder *holder, struct dr_error *e) {
  return dr_fail(e, "taken", EADDRINUSE, "port %d on %s is held by %s; choose another port, or stop its holder", port,
                 a->text, holder->name);
}
