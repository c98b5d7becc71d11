// The cgroup of a process, version 1 and 2: its place, its usage, its limits.
// Files, formats and units are those of the kernel's Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
#ifndef DOCKRUN_CGROUP_H
#define DOCKRUN_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "data/error.h"

enum { DR_CGROUP_TEXT = 65536 };  // more than any of these files has

// The controllers of version 1 that dockrun uses, and the one tree of version 2.
enum dr_controller {
  DR_MEMORY,
  DR_CPU,
  DR_CPUACCT,
  DR_PIDS,
  DR_BLKIO,
  DR_CPUSET,
  DR_UNIFIED,
  DR_CONTROLLERS,
};

extern const char *const dr_controller_names[DR_CONTROLLERS];

struct dr_cgroup {
  int version;
  // The directory of each controller, empty if the controller is off. Version 2 has DR_UNIFIED alone; version 1 has it
  // too if the host is a hybrid and the process has a place of its own there (for pressure).
  char path[DR_CONTROLLERS][PATH_MAX];
};

// Where to look. NULL members mean /sys/fs/cgroup and /proc. `cgroup` replaces mount points at and below
// /sys/fs/cgroup; other mount points are used unchanged.
struct dr_cgroup_root {
  const char *cgroup, *proc;
};

// ---- cgroup.c: finding -----------------------------------------------------------------------

// The host's version: 1 or 2, or -code. A hybrid counts as 1, as its controllers are there.
int dr_cgroup_version(const struct dr_cgroup_root *root, struct dr_error *e);
int dr_cgroup_find(struct dr_cgroup *g, pid_t pid, const struct dr_cgroup_root *root, struct dr_error *e);

// The path of a file of the cgroup: 0, -ENOENT if its controller, which is the first part of its name, is off (then
// e is not filled), or another -code.
int dr_cgroup_path(const struct dr_cgroup *g, const char *file, char path[PATH_MAX], struct dr_error *e);

// Reads a whole file: its length, -ENOENT if there is no such file (then e is not filled), or another -code.
ssize_t dr_cgroup_slurp(const struct dr_cgroup *g, const char *file, char *text, size_t size, struct dr_error *e);

// Reads a number at the start of a word: true, and *value -1 for the kernel's forms of "no limit" ("max", a negative
// number, or the largest number of a page counter of version 1). False if it is no number.
bool dr_cgroup_number(const char *word, int64_t *value);

// ---- cgroup_stat.c: reading ------------------------------------------------------------------

// One row per value: its place in the result, and where it comes from in version 1 and in version 2.
struct dr_cgroup_field {
  const char *group, *name;
  struct {
    const char *file;  // NULL if the version has none
    const char *key;   // the text of the line before the number, "*" for any word; NULL: nothing
    int64_t ns;        // nanoseconds per unit of a time; 0: not a time
  } source[2];
};

enum { DR_CGROUP_FIELDS = 17, DR_PRESSURES = 3 };
extern const struct dr_cgroup_field dr_cgroup_fields[DR_CGROUP_FIELDS];
extern const char *const dr_pressure_names[DR_PRESSURES];

struct dr_cgroup_io {
  unsigned major, minor;
  int64_t read_bytes, write_bytes, reads, writes;
};

struct dr_pressure {
  bool present;
  double avg10, avg60, avg300;  // percent
  int64_t total;                // microseconds
};

struct dr_cgroup_stat {
  int64_t value[DR_CGROUP_FIELDS];  // by dr_cgroup_fields, times in nanoseconds; -1 if absent or unlimited
  bool has_io;
  struct dr_cgroup_io *io;
  size_t io_count;
  struct dr_pressure pressure[DR_PRESSURES][2];  // some, full
};

// Reads the files that exist; the values of other files are absent. Fails if a directory of the cgroup is gone or a
// file has another format ("protocol"). Call dr_cgroup_stat_free in either case.
int dr_cgroup_read(struct dr_cgroup_stat *s, const struct dr_cgroup *g, struct dr_error *e);
void dr_cgroup_stat_free(struct dr_cgroup_stat *s);

// ---- cgroup_limits.c: converting and writing -------------------------------------------------

enum dr_limit {
  DR_LIMIT_MEMORY,              // bytes
  DR_LIMIT_MEMORY_SWAP,         // bytes of memory and swap together, as the engine's MemorySwap
  DR_LIMIT_MEMORY_RESERVATION,  // bytes
  DR_LIMIT_CPU_SHARES,
  DR_LIMIT_CPU_WEIGHT,
  DR_LIMIT_CPU_QUOTA,   // microseconds per period
  DR_LIMIT_CPU_PERIOD,  // microseconds
  DR_LIMIT_PIDS,
  DR_LIMITS,
};

enum { DR_UNLIMITED = -1 };
#define DR_UNSET INT64_MIN

extern const char *const dr_limit_names[DR_LIMITS];

struct dr_cgroup_limits {
  int64_t value[DR_LIMITS];  // DR_UNSET, DR_UNLIMITED if the limit can be removed, or a value in range
  const char *cpuset;        // a list of CPUs as in cpuset(7), or NULL
};

// Checks all limits, then writes those that are set. If a write fails, limits before it in the order of dr_limit are
// in force. The kernel decides about a memory limit below the memory in use: version 1 refuses it, version 2 reclaims
// and, if that is not enough, kills.
int dr_cgroup_write(const struct dr_cgroup *g, const struct dr_cgroup_limits *l, struct dr_error *e);

// Conversions: the value, or -code with "invalid".
int64_t dr_weight_from_shares(int64_t shares, struct dr_error *e);
int64_t dr_shares_from_weight(int64_t weight, struct dr_error *e);

#endif
