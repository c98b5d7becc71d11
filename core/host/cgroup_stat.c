// The usage of a cgroup: one table says which file has which value in which version.
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/cgroup.h"

// Rows that share a file are neighbours, so that it is read once and their values belong to one instant.
const struct dr_cgroup_field dr_cgroup_fields[DR_CGROUP_FIELDS] = {
    {"memory", "usage", {{"memory.usage_in_bytes", NULL, 0}, {"memory.current", NULL, 0}}},
    {"memory", "peak", {{"memory.max_usage_in_bytes", NULL, 0}, {"memory.peak", NULL, 0}}},
    {"memory", "limit", {{"memory.limit_in_bytes", NULL, 0}, {"memory.max", NULL, 0}}},
    {"memory", "swap_limit", {{"memory.memsw.limit_in_bytes", NULL, 0}, {"memory.swap.max", NULL, 0}}},
    {"memory", "reservation", {{"memory.soft_limit_in_bytes", NULL, 0}, {"memory.low", NULL, 0}}},
    {"memory", "oom_kills", {{"memory.oom_control", "oom_kill", 0}, {"memory.events", "oom_kill", 0}}},
    // Page cache that can be dropped at once: what `docker stats` takes off the usage.
    {"memory", "inactive_file", {{"memory.stat", "total_inactive_file", 0}, {"memory.stat", "inactive_file", 0}}},
    {"cpu", "usage", {{"cpuacct.usage", NULL, 1}, {"cpu.stat", "usage_usec", 1000}}},
    {"cpu", "throttled", {{"cpu.stat", "throttled_time", 1}, {"cpu.stat", "throttled_usec", 1000}}},
    {"cpu", "throttled_periods", {{"cpu.stat", "nr_throttled", 0}, {"cpu.stat", "nr_throttled", 0}}},
    {"cpu", "periods", {{"cpu.stat", "nr_periods", 0}, {"cpu.stat", "nr_periods", 0}}},
    {"cpu", "shares", {{"cpu.shares", NULL, 0}, {NULL, NULL, 0}}},
    {"cpu", "weight", {{NULL, NULL, 0}, {"cpu.weight", NULL, 0}}},
    {"cpu", "quota", {{"cpu.cfs_quota_us", NULL, 0}, {"cpu.max", NULL, 0}}},
    {"cpu", "period", {{"cpu.cfs_period_us", NULL, 0}, {"cpu.max", "*", 0}}},
    {"pids", "current", {{"pids.current", NULL, 0}, {"pids.current", NULL, 0}}},
    {"pids", "limit", {{"pids.max", NULL, 0}, {"pids.max", NULL, 0}}},
};

enum { LIMIT = 2, SWAP_LIMIT = 3, RESERVATION = 4 };  // rows that version 2 means otherwise

const char *const dr_pressure_names[DR_PRESSURES] = {"cpu", "memory", "io"};

static int stat_fail(const char *file, const struct dr_cgroup *g, const char *at, struct dr_error *e) {
  char path[PATH_MAX];
  if (dr_cgroup_path(g, file, path, NULL) < 0) strcpy(path, file);
  return dr_fail(e, "protocol", EBADMSG, "%s does not hold what the kernel puts there: a number is expected at '%.40s'",
                 path, *at ? at : "(end of file)");
}

// The word after a key at the start of a line, or NULL.
static const char *stat_after_key(const char *text, const char *key) {
  if (!key) return text;
  bool any = strcmp(key, "*") == 0;
  for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
    size_t n = any ? strcspn(line, " \n") : strlen(key);
    if ((any || strncmp(line, key, n) == 0) && line[n] == ' ') return line + n + 1;
  }
  return NULL;
}

static int stat_read_values(struct dr_cgroup_stat *s, const struct dr_cgroup *g, char *text, struct dr_error *e) {
  const char *last = "";
  ssize_t n = -ENOENT;
  for (int i = 0; i < DR_CGROUP_FIELDS; i++) {
    int version = g->version - 1;
    const char *file = dr_cgroup_fields[i].source[version].file, *key = dr_cgroup_fields[i].source[version].key;
    int64_t ns = dr_cgroup_fields[i].source[version].ns, *value = &s->value[i];
    *value = DR_UNLIMITED;
    if (!file) continue;
    if (strcmp(file, last) != 0) n = dr_cgroup_slurp(g, last = file, text, DR_CGROUP_TEXT, e);
    if (n == -ENOENT) continue;
    if (n < 0) return (int)n;
    const char *word = stat_after_key(text, key);
    if (!word) continue;
    if (!dr_cgroup_number(word, value)) return stat_fail(file, g, word, e);
    if (ns > 1 && *value > 0) *value = *value <= INT64_MAX / ns ? *value * ns : INT64_MAX;
  }
  if (g->version == 1) return 0;
  // Version 2 limits swap by itself; both versions report memory and swap together, as the engine's MemorySwap. A
  // reservation of 0 is none.
  int64_t *limit = &s->value[LIMIT], *swap_limit = &s->value[SWAP_LIMIT], *reservation = &s->value[RESERVATION];
  if (*swap_limit >= 0) *swap_limit = *limit < 0 ? DR_UNLIMITED : *limit + *swap_limit;
  if (*reservation == 0) *reservation = DR_UNLIMITED;
  return 0;
}

// The row of a device, added if it is new; NULL: no memory.
static struct dr_cgroup_io *stat_device(struct dr_cgroup_stat *s, unsigned major, unsigned minor) {
  for (size_t i = 0; i < s->io_count; i++)
    if (s->io[i].major == major && s->io[i].minor == minor) return &s->io[i];
  struct dr_cgroup_io *more = realloc(s->io, (s->io_count + 1) * sizeof *more);
  if (!more) return NULL;
  s->io = more;
  more[s->io_count] = (struct dr_cgroup_io){.major = major, .minor = minor};
  return &more[s->io_count++];
}

// Both versions name a device and then amounts: version 2 as "8:0 rbytes=1 wbytes=2 …" on one line, version 1 as a line
// "8:0 Read 1" each. A file is read as words, because some kernels leave out line ends behind idle devices.
struct io_source {
  const char *file, *otherwise;  // `otherwise` if the kernel is too old for `file`
  struct {
    const char *name;
    size_t offset;
  } amounts[5];
};

static int stat_read_io_file(struct dr_cgroup_stat *s, const struct dr_cgroup *g, const struct io_source *source,
                             char *text, struct dr_error *e) {
  const char *file = source->file;
  ssize_t n = dr_cgroup_slurp(g, file, text, DR_CGROUP_TEXT, e);
  if (n == -ENOENT && source->otherwise) n = dr_cgroup_slurp(g, file = source->otherwise, text, DR_CGROUP_TEXT, e);
  if (n < 0) return n == -ENOENT ? 0 : (int)n;
  s->has_io = true;
  struct dr_cgroup_io *io = NULL;
  char *rest = NULL;
  for (char *word = strtok_r(text, " =\n", &rest); word; word = strtok_r(NULL, " =\n", &rest)) {
    unsigned major, minor;
    int end = 0;
    if (sscanf(word, "%u:%u%n", &major, &minor, &end) == 2 && !word[end]) {
      if (!(io = stat_device(s, major, minor))) return dr_fail_errno(e, ENOMEM, "cannot read %s", file);
      continue;
    }
    char *number = strtok_r(NULL, " =\n", &rest);
    int i = 0;
    while (source->amounts[i].name && strcmp(word, source->amounts[i].name) != 0) i++;
    if (number && !source->amounts[i].name) continue;  // discards, "Total", figures of I/O controllers
    int64_t value;
    if (!io || !number || !dr_cgroup_number(number, &value)) return stat_fail(file, g, number ? number : word, e);
    *(int64_t *)((char *)io + source->amounts[i].offset) = value;
  }
  return 0;
}

static int stat_read_io(struct dr_cgroup_stat *s, const struct dr_cgroup *g, char *text, struct dr_error *e) {
#define AT(member) offsetof(struct dr_cgroup_io, member)
  static const struct io_source v1[] = {
      {"blkio.throttle.io_service_bytes_recursive",
       "blkio.throttle.io_service_bytes",
       {{"Read", AT(read_bytes)}, {"Write", AT(write_bytes)}}},
      {"blkio.throttle.io_serviced_recursive",
       "blkio.throttle.io_serviced",
       {{"Read", AT(reads)}, {"Write", AT(writes)}}},
  };
  static const struct io_source v2 = {
      "io.stat",
      NULL,
      {{"rbytes", AT(read_bytes)}, {"wbytes", AT(write_bytes)}, {"rios", AT(reads)}, {"wios", AT(writes)}}};
#undef AT
  if (g->version == 2) return stat_read_io_file(s, g, &v2, text, e);
  int rc = stat_read_io_file(s, g, &v1[0], text, e);
  return rc < 0 ? rc : stat_read_io_file(s, g, &v1[1], text, e);
}

// Documentation/accounting/psi.rst: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", then the same for "full".
static int stat_read_pressure(struct dr_cgroup_stat *s, const struct dr_cgroup *g, char *text, struct dr_error *e) {
  static const char *const kinds[] = {"some", "full"};
  for (int i = 0; i < DR_PRESSURES; i++) {
    char file[32];
    snprintf(file, sizeof file, "%s.pressure", dr_pressure_names[i]);
    ssize_t n = dr_cgroup_slurp(g, file, text, DR_CGROUP_TEXT, e);
    if (n == -ENOENT) continue;
    if (n < 0) return (int)n;
    for (int k = 0; k < 2; k++) {
      const char *line = stat_after_key(text, kinds[k]);
      struct dr_pressure *p = &s->pressure[i][k];
      if (!line) continue;
      unsigned whole[3], hundredths[3];  // not %lf, which asks the locale for its point
      long long total;
      if (sscanf(line, "avg10=%u.%2u avg60=%u.%2u avg300=%u.%2u total=%lld", &whole[0], &hundredths[0], &whole[1],
                 &hundredths[1], &whole[2], &hundredths[2], &total) != 7)
        return stat_fail(file, g, line, e);
      p->avg10 = whole[0] + hundredths[0] / 100.0;
      p->avg60 = whole[1] + hundredths[1] / 100.0;
      p->avg300 = whole[2] + hundredths[2] / 100.0;
      p->total = total;
      p->present = true;
    }
  }
  return 0;
}

// Fails if a directory of the group is gone.
static int stat_check_there(const struct dr_cgroup *g, struct dr_error *e) {
  bool found = false;
  for (int c = 0; c < DR_CONTROLLERS; c++) {
    if (!*g->path[c]) continue;
    found = true;
    if (access(g->path[c], F_OK) != 0)
      return dr_fail(e, "system", ENOENT, "the cgroup %s is gone; its last process has ended", g->path[c]);
  }
  return found ? 0 : dr_fail(e, "system", ENOENT, "this cgroup has no directory on this host");
}

int dr_cgroup_read(struct dr_cgroup_stat *s, const struct dr_cgroup *g, struct dr_error *e) {
  memset(s, 0, sizeof *s);
  char *text = malloc(DR_CGROUP_TEXT);
  if (!text) return dr_fail_errno(e, ENOMEM, "cannot read the cgroup");
  int rc = stat_read_values(s, g, text, e);
  if (rc == 0) rc = stat_read_io(s, g, text, e);
  if (rc == 0) rc = stat_read_pressure(s, g, text, e);
  free(text);
  // Last, because a file of a group that went meanwhile passes for one that the kernel does not have.
  return rc < 0 ? rc : stat_check_there(g, e);
}

void dr_cgroup_stat_free(struct dr_cgroup_stat *s) {
  free(s->io);
  s->io = NULL;
  s->io_count = 0;
}
