// Finds the cgroup of a process: its membership (/proc/PID/cgroup) laid over the mounts (/proc/self/mountinfo).
#include "host/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const dr_controller_names[DR_CONTROLLERS] = {"memory", "cpu",    "cpuacct", "pids",
                                                         "blkio",  "cpuset", "unified"};

static const char *cgroup_or_default(const char *path, const char *otherwise) { return path ? path : otherwise; }

// The controllers named in a comma-separated list, as a set of bits.
static unsigned cgroup_controllers(char *list) {
  unsigned set = 0;
  for (char *rest, *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
    for (int c = 0; c < DR_UNIFIED; c++)
      if (strcmp(name, dr_controller_names[c]) == 0) set |= 1u << c;
  return set;
}

// mountinfo writes blank, tab, newline and backslash as three octal digits.
static void mount_unescape(char *s) {
  char *out = s;
  for (; *s; out++) {
    if (*s == '\\' && strspn(s + 1, "01234567") >= 3) {
      *out = (char)((s[1] & 7) << 6 | (s[2] & 7) << 3 | (s[3] & 7));
      s += 4;
    } else {
      *out = *s++;
    }
  }
  *out = '\0';
}

struct mount {
  unsigned controllers;  // bits by dr_controller
  char *root, *point;    // the directory of the hierarchy that is mounted, and its place
};

// Reads a line of mountinfo (proc(5)): "id parent major:minor root point options [optional]… - type source
// super-options".
static bool mount_parse(char *line, struct mount *m) {
  char *tail = strstr(line, " - "), *rest = NULL, *options;
  if (!tail) return false;
  *tail = '\0';
  char *type = strtok_r(tail + 3, " \n", &rest);
  strtok_r(NULL, " \n", &rest);
  if (!type || !(options = strtok_r(NULL, " \n", &rest))) return false;
  if (strcmp(type, "cgroup2") == 0)
    m->controllers = 1u << DR_UNIFIED;
  else if (strcmp(type, "cgroup") == 0)
    m->controllers = cgroup_controllers(options);
  else
    return false;
  rest = NULL;
  strtok_r(line, " ", &rest);
  for (int i = 0; i < 2; i++) strtok_r(NULL, " ", &rest);
  m->root = strtok_r(NULL, " ", &rest);
  m->point = strtok_r(NULL, " ", &rest);
  if (!m->root || !m->point) return false;
  mount_unescape(m->root);
  mount_unescape(m->point);
  return true;
}

// Puts the place of a membership path under a mount into `place`, if the mount shows it. A mount of a part of the
// hierarchy (in a container without a cgroup namespace) shows only paths below its root; "/.." is outside of our cgroup
// namespace.
static void mount_resolve(char *place, const struct mount *m, const char *path, const struct dr_cgroup_root *root) {
  static const char usual[] = "/sys/fs/cgroup";
  const char *prefix = "", *point = m->point;
  size_t n = strcmp(m->root, "/") == 0 ? 0 : strlen(m->root), usual_length = sizeof usual - 1;
  if (strncmp(path, m->root, n) != 0 || (n && path[n] != '/' && path[n] != '\0') || strncmp(path, "/..", 3) == 0)
    return;
  path += n;
  if (root->cgroup && strncmp(point, usual, usual_length) == 0 &&
      (!point[usual_length] || point[usual_length] == '/')) {
    prefix = root->cgroup;
    point += usual_length;
  }
  if (snprintf(place, PATH_MAX, "%s%s%s", prefix, point, strcmp(path, "/") == 0 ? "" : path) >= PATH_MAX) *place = '\0';
}

// Lays memberships (by controller, or NULL) over the mounts, and returns the version, or -code.
// g and path may be NULL if only the version is needed.
static int mount_scan(struct dr_cgroup *g, char *path[DR_CONTROLLERS], const struct dr_cgroup_root *root,
                      struct dr_error *e) {
  char file[PATH_MAX], *line = NULL;
  size_t size = 0;
  unsigned seen = 0;
  snprintf(file, sizeof file, "%s/self/mountinfo", cgroup_or_default(root->proc, "/proc"));
  FILE *f = fopen(file, "re");
  if (!f) return dr_fail_errno(e, errno, "cannot read the mounts in %s", file);
  while (getline(&line, &size, f) > 0) {
    struct mount m;
    if (!mount_parse(line, &m)) continue;
    seen |= m.controllers;
    for (int c = 0; g && c < DR_CONTROLLERS; c++)
      if ((m.controllers >> c & 1) && path[c] && !*g->path[c]) mount_resolve(g->path[c], &m, path[c], root);
  }
  free(line);
  fclose(f);
  if (seen & ~(1u << DR_UNIFIED)) return 1;
  if (seen) return 2;
  return dr_fail(e, "system", ENOENT, "%s has no cgroup mount; mount cgroup2 at /sys/fs/cgroup", file);
}

int dr_cgroup_version(const struct dr_cgroup_root *root, struct dr_error *e) { return mount_scan(NULL, NULL, root, e); }

int dr_cgroup_find(struct dr_cgroup *g, pid_t pid, const struct dr_cgroup_root *root, struct dr_error *e) {
  char file[PATH_MAX], *line = NULL, *path[DR_CONTROLLERS] = {NULL};
  size_t size = 0;
  int rc = 0;
  bool found = false;
  memset(g, 0, sizeof *g);
  snprintf(file, sizeof file, "%s/%d/cgroup", cgroup_or_default(root->proc, "/proc"), (int)pid);
  FILE *f = fopen(file, "re");
  if (!f && errno == ENOENT) return dr_fail(e, "system", ESRCH, "process %d is gone: there is no %s", (int)pid, file);
  if (!f) return dr_fail_errno(e, errno, "cannot read %s", file);
  // cgroups(7): "hierarchy:controllers:path"; in version 2 the hierarchy is 0 and the list empty. The path may hold
  // colons.
  while (getline(&line, &size, f) > 0) {
    char *list = strchr(line, ':'), *place = list ? strchr(list + 1, ':') : NULL;
    if (!place) continue;
    *list++ = *place++ = '\0';
    place[strcspn(place, "\n")] = '\0';
    unsigned set = strcmp(line, "0") == 0 ? 1u << DR_UNIFIED : cgroup_controllers(list);
    for (int c = 0; c < DR_CONTROLLERS; c++)
      if ((set >> c & 1) && !path[c] && !(path[c] = strdup(place)))
        rc = dr_fail_errno(e, ENOMEM, "cannot read %s", file);
  }
  if (ferror(f)) rc = dr_fail(e, "system", ESRCH, "process %d is gone: %s cannot be read any more", (int)pid, file);
  if (rc == 0) rc = mount_scan(g, path, root, e);
  if (rc > 0) {
    g->version = rc;
    rc = 0;
    // In a hybrid a process without a place of its own in the unified tree is in its root, with everyone else.
    if (g->version == 1 && path[DR_UNIFIED] && strcmp(path[DR_UNIFIED], "/") == 0) *g->path[DR_UNIFIED] = '\0';
    for (int c = 0; c < DR_CONTROLLERS; c++) found = found || *g->path[c];
    if (!found)
      rc = dr_fail(e, "system", ENOENT, "the cgroup of process %d (%s) is not below any cgroup mount of this process",
                   (int)pid, file);
  }
  for (int c = 0; c < DR_CONTROLLERS; c++) free(path[c]);
  free(line);
  fclose(f);
  return rc;
}

int dr_cgroup_path(const struct dr_cgroup *g, const char *file, char path[PATH_MAX], struct dr_error *e) {
  int c = 0;
  size_t n = strcspn(file, ".");
  while (c < DR_UNIFIED && (strncmp(dr_controller_names[c], file, n) != 0 || dr_controller_names[c][n])) c++;
  // Pressure is kept in the unified tree, in a hybrid too.
  if (g->version == 2 || strstr(file, ".pressure")) c = DR_UNIFIED;
  if (!*g->path[c]) return -ENOENT;
  if (snprintf(path, PATH_MAX, "%s/%s", g->path[c], file) < PATH_MAX) return 0;
  return dr_fail_errno(e, ENAMETOOLONG, "cannot open %s of %s", file, g->path[c]);
}

ssize_t dr_cgroup_slurp(const struct dr_cgroup *g, const char *file, char *text, size_t size, struct dr_error *e) {
  char path[PATH_MAX];
  size_t used = 0;
  ssize_t n = 0;
  int rc = dr_cgroup_path(g, file, path, e);
  if (rc < 0) return rc;
  int fd = open(path, O_RDONLY | O_CLOEXEC), code = fd < 0 ? errno : 0;
  while (fd >= 0 && used < size - 1 && (n = read(fd, text + used, size - 1 - used)) > 0) used += n;
  if (n < 0) code = errno;
  if (fd >= 0) close(fd);
  text[used] = '\0';
  // A file that this kernel does not have; a group removed meanwhile; a kernel booted with psi=0.
  if (code == ENOENT || code == ENODEV || code == EOPNOTSUPP) return -ENOENT;
  if (!code && used == size - 1) code = EFBIG;
  return code ? dr_fail_errno(e, code, "cannot read %s", path) : (ssize_t)used;
}

bool dr_cgroup_number(const char *word, int64_t *value) {
  // PAGE_COUNTER_MAX of mm/page_counter.c in bytes, rounded down as for the largest pages (64 KiB).
  static const unsigned long long most = 0x7fffffffffff0000;
  size_t n = strcspn(word, " \n");
  *value = DR_UNLIMITED;
  if (n == 3 && strncmp(word, "max", 3) == 0) return true;
  bool negative = *word == '-';
  if (n == (size_t)negative || strspn(word + negative, "0123456789") != n - negative) return false;
  errno = 0;
  unsigned long long number = strtoull(word + negative, NULL, 10);
  if (!negative && errno == 0 && number < most) *value = (int64_t)number;
  return true;
}
