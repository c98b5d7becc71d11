// The limits of a cgroup: CPU shares (version 1) and weight (version 2) converted into each other, and writing in an
// order that the kernel accepts. It knows no job: lua/dockrun/driver/limits.lua does.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/cgroup.h"

// As in what cgroup.read returns: group.name.
const char *const dr_limit_names[DR_LIMITS] = {
    "memory.limit", "memory.swap_limit", "memory.reservation", "cpu.shares",
    "cpu.weight",   "cpu.quota",         "cpu.period",         "pids.limit",
};

// What the kernel accepts: shares as MIN_SHARES and MAX_SHARES of kernel/sched/sched.h, weight as in cgroup-v2.rst,
// quota and period as min_cfs_quota_period, max_cfs_quota_period and MAX_BW of kernel/sched, pids up to PID_MAX_LIMIT.
// Memory is at least a page; below the page counter's end, which means unlimited.
static const struct range {
  int64_t min, max;
  bool can_be_unlimited;
} ranges[DR_LIMITS] = {
    [DR_LIMIT_MEMORY] = {4096, 0x7ffffffffffeffff, true},
    [DR_LIMIT_MEMORY_SWAP] = {4096, 0x7ffffffffffeffff, true},
    [DR_LIMIT_MEMORY_RESERVATION] = {0, 0x7ffffffffffeffff, true},
    [DR_LIMIT_CPU_SHARES] = {2, 262144, false},
    [DR_LIMIT_CPU_WEIGHT] = {1, 10000, false},
    [DR_LIMIT_CPU_QUOTA] = {1000, (INT64_C(1) << 44) - 1, true},
    [DR_LIMIT_CPU_PERIOD] = {1000, 1000000, false},
    [DR_LIMIT_PIDS] = {1, 4194304, true},
};

static int limit_check(enum dr_limit limit, int64_t value, struct dr_error *e) {
  const struct range *r = &ranges[limit];
  if ((value >= r->min && value <= r->max) || (r->can_be_unlimited && value == DR_UNLIMITED)) return 0;
  return dr_fail(e, "invalid", ERANGE, "%s must be within %" PRId64 " to %" PRId64 "%s, got %" PRId64,
                 dr_limit_names[limit], r->min, r->max, r->can_be_unlimited ? ", or -1 for no limit" : "", value);
}

// ---- conversions -----------------------------------------------------------------------------

// The straight line from 2..262144 onto 1..10000, rounded down: Kubernetes KEP-2254, as runc and crun have it
// (crun.1.md, "CPU controller"). Their newest releases bend it so that 1024 shares become the default weight of 100.
int64_t dr_weight_from_shares(int64_t shares, struct dr_error *e) {
  int rc = limit_check(DR_LIMIT_CPU_SHARES, shares, e);
  return rc < 0 ? rc : 1 + (shares - 2) * 9999 / 262142;
}

int64_t dr_shares_from_weight(int64_t weight, struct dr_error *e) {
  int rc = limit_check(DR_LIMIT_CPU_WEIGHT, weight, e);
  return rc < 0 ? rc : 2 + (weight - 1) * 262142 / 9999;
}

// ---- writing ---------------------------------------------------------------------------------

static int limit_fail(const struct dr_cgroup *g, const char *file, const char *what, int code, struct dr_error *e) {
  char path[PATH_MAX];
  bool off = dr_cgroup_path(g, file, path, NULL) < 0;
  bool swap = strstr(file, "memsw") || strstr(file, "swap");
  return dr_fail_errno(e, code, "cannot %s %s%s", what, off ? file : path,
                       off                      ? " (its controller is off)"
                       : swap && code == ENOENT ? " (the kernel counts no swap; boot it with swapaccount=1)"
                       : code == EBUSY          ? " (more is in use than can be reclaimed)"
                                                : "");
}

static int limit_put_text(const struct dr_cgroup *g, const char *file, const char *text, struct dr_error *e) {
  char path[PATH_MAX], what[300];
  int rc = dr_cgroup_path(g, file, path, e);
  if (rc < 0 && rc != -ENOENT) return rc;
  int code = rc < 0 ? ENOENT : 0, fd = code ? -1 : open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
  if (!code && (fd < 0 || write(fd, text, strlen(text)) < 0)) code = errno;
  if (fd >= 0) close(fd);
  snprintf(what, sizeof what, "write '%s' to", text);
  return code ? limit_fail(g, file, what, code, e) : 0;
}

static int limit_put(const struct dr_cgroup *g, const char *file, int64_t value, struct dr_error *e) {
  char text[32];
  bool word = g->version == 2 || strcmp(file, "pids.max") == 0;
  snprintf(text, sizeof text, word && value == DR_UNLIMITED ? "max" : "%" PRId64, value);
  return limit_put_text(g, file, text, e);
}

// The number that a file holds now, -1 for unlimited.
static int limit_get(const struct dr_cgroup *g, const char *file, int64_t *value, struct dr_error *e) {
  char text[256];
  ssize_t n = dr_cgroup_slurp(g, file, text, sizeof text, e);
  if (n == -ENOENT) return limit_fail(g, file, "read", ENOENT, e);
  if (n < 0) return (int)n;
  if (dr_cgroup_number(text, value)) return 0;
  return dr_fail(e, "protocol", EBADMSG, "%s: expected a number from the kernel, got '%.40s'", file, text);
}

static uint64_t limit_amount(int64_t value) { return value == DR_UNLIMITED ? UINT64_MAX : (uint64_t)value; }

static int limit_check_swap(int64_t memory, int64_t swap, struct dr_error *e) {
  if (limit_amount(swap) >= limit_amount(memory)) return 0;
  return dr_fail(e, "invalid", ERANGE,
                 "memory.swap_limit counts memory and swap together: %" PRId64 " is less than memory.limit of %" PRId64
                 " (-1 is no limit); set both",
                 swap, memory);
}

static bool limit_is_set(int64_t value) { return value != DR_UNSET; }

// The kernel keeps memsw >= memory at every instant: memory rises after memsw, and falls before it.
static int limit_write_memory_v1(const struct dr_cgroup *g, int64_t memory, int64_t swap, struct dr_error *e) {
  static const char memory_file[] = "memory.limit_in_bytes", swap_file[] = "memory.memsw.limit_in_bytes";
  int64_t memory_now, swap_now;
  int rc = limit_get(g, memory_file, &memory_now, e);
  if (rc == 0) rc = limit_get(g, swap_file, &swap_now, e);
  if (rc == -ENOENT && !limit_is_set(swap)) return limit_put(g, memory_file, memory, e);
  if (rc < 0) return rc;
  if ((rc = limit_check_swap(limit_is_set(memory) ? memory : memory_now, limit_is_set(swap) ? swap : swap_now, e)) < 0)
    return rc;
  if (!limit_is_set(swap)) return limit_put(g, memory_file, memory, e);
  if (!limit_is_set(memory)) return limit_put(g, swap_file, swap, e);
  bool swap_first = limit_amount(memory) > limit_amount(swap_now);
  rc = limit_put(g, swap_first ? swap_file : memory_file, swap_first ? swap : memory, e);
  return rc < 0 ? rc : limit_put(g, swap_first ? memory_file : swap_file, swap_first ? memory : swap, e);
}

static int limit_write_memory_v2(const struct dr_cgroup *g, int64_t memory, int64_t swap, struct dr_error *e) {
  int rc = 0;
  if (limit_is_set(swap)) {
    int64_t limit = memory;
    if (!limit_is_set(memory) && (rc = limit_get(g, "memory.max", &limit, e)) < 0) return rc;
    if ((rc = limit_check_swap(limit, swap, e)) < 0) return rc;
    // First, because the kernel may not count swap: then nothing is changed.
    rc = limit_put(g, "memory.swap.max", swap == DR_UNLIMITED ? swap : swap - limit, e);
  }
  return rc < 0 || !limit_is_set(memory) ? rc : limit_put(g, "memory.max", memory, e);
}

// The kernel refuses a quota per period above the parent's, even for an instant: the write that lowers it is first.
static int limit_write_quota_v1(const struct dr_cgroup *g, int64_t quota, int64_t period, struct dr_error *e) {
  static const char quota_file[] = "cpu.cfs_quota_us", period_file[] = "cpu.cfs_period_us";
  if (!limit_is_set(quota)) return limit_put(g, period_file, period, e);
  if (!limit_is_set(period)) return limit_put(g, quota_file, quota, e);
  int rc = limit_put(g, period_file, period, e);
  if (rc != -EINVAL) return rc < 0 ? rc : limit_put(g, quota_file, quota, e);
  rc = limit_put(g, quota_file, quota, e);
  return rc < 0 ? rc : limit_put(g, period_file, period, e);
}

static int limit_write_quota_v2(const struct dr_cgroup *g, int64_t quota, int64_t period, struct dr_error *e) {
  char text[64];
  int rc = 0;
  if (!limit_is_set(quota) && (rc = limit_get(g, "cpu.max", &quota, e)) < 0) return rc;
  if (!limit_is_set(period)) return limit_put(g, "cpu.max", quota, e);
  if (quota == DR_UNLIMITED)
    snprintf(text, sizeof text, "max %" PRId64, period);
  else
    snprintf(text, sizeof text, "%" PRId64 " %" PRId64, quota, period);
  return limit_put_text(g, "cpu.max", text, e);
}

static int limit_check_all(const struct dr_cgroup_limits *l, struct dr_error *e) {
  const int64_t *v = l->value;
  int rc = 0;
  for (enum dr_limit i = 0; rc == 0 && i < DR_LIMITS; i++)
    if (limit_is_set(v[i])) rc = limit_check(i, v[i], e);
  if (rc < 0) return rc;
  if (limit_is_set(v[DR_LIMIT_CPU_SHARES]) && limit_is_set(v[DR_LIMIT_CPU_WEIGHT]))
    return dr_fail(e, "invalid", EINVAL, "cpu.shares and cpu.weight are one limit in two units; set one of them");
  if (limit_is_set(v[DR_LIMIT_MEMORY_RESERVATION]) && v[DR_LIMIT_MEMORY_RESERVATION] != DR_UNLIMITED &&
      limit_is_set(v[DR_LIMIT_MEMORY]) &&
      limit_amount(v[DR_LIMIT_MEMORY_RESERVATION]) > limit_amount(v[DR_LIMIT_MEMORY]))
    return dr_fail(e, "invalid", ERANGE,
                   "memory.reservation (%" PRId64 ") must not be above memory.limit (%" PRId64 ")",
                   v[DR_LIMIT_MEMORY_RESERVATION], v[DR_LIMIT_MEMORY]);
  size_t n = l->cpuset ? strlen(l->cpuset) : 1;
  if (n == 0 || n > 256 || (l->cpuset && strspn(l->cpuset, "0123456789,-") != n))
    return dr_fail(e, "invalid", EINVAL, "cpuset must be a list of CPUs such as '0-2,7', got '%.40s'", l->cpuset);
  return 0;
}

int dr_cgroup_write(const struct dr_cgroup *g, const struct dr_cgroup_limits *l, struct dr_error *e) {
  const int64_t *v = l->value;
  int64_t memory = v[DR_LIMIT_MEMORY], swap = v[DR_LIMIT_MEMORY_SWAP], reservation = v[DR_LIMIT_MEMORY_RESERVATION];
  int64_t shares = v[DR_LIMIT_CPU_SHARES], weight = v[DR_LIMIT_CPU_WEIGHT];
  int64_t quota = v[DR_LIMIT_CPU_QUOTA], period = v[DR_LIMIT_CPU_PERIOD];
  bool v2 = g->version == 2;
  int rc = limit_check_all(l, e);
  if (rc == 0 && (limit_is_set(memory) || limit_is_set(swap)))
    rc = (v2 ? limit_write_memory_v2 : limit_write_memory_v1)(g, memory, swap, e);
  if (rc == 0 && limit_is_set(reservation))
    rc = v2 ? limit_put(g, "memory.low", reservation == DR_UNLIMITED ? 0 : reservation, e)
            : limit_put(g, "memory.soft_limit_in_bytes", reservation, e);
  if (rc == 0 && (limit_is_set(shares) || limit_is_set(weight)))
    rc = v2 ? limit_put(g, "cpu.weight", limit_is_set(weight) ? weight : dr_weight_from_shares(shares, e), e)
            : limit_put(g, "cpu.shares", limit_is_set(shares) ? shares : dr_shares_from_weight(weight, e), e);
  if (rc == 0 && (limit_is_set(quota) || limit_is_set(period)))
    rc = (v2 ? limit_write_quota_v2 : limit_write_quota_v1)(g, quota, period, e);
  if (rc == 0 && limit_is_set(v[DR_LIMIT_PIDS])) rc = limit_put(g, "pids.max", v[DR_LIMIT_PIDS], e);
  if (rc == 0 && l->cpuset) rc = limit_put_text(g, "cpuset.cpus", l->cpuset, e);
  return rc;
}
