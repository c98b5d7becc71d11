#include "host/beneath.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WALKS_AGAIN = 64 };  // after a rename that met a ".." on the way of openat2

// Closes a descriptor and leaves errno alone.
static void beneath_close(int fd) {
  int saved = errno;
  if (fd >= 0) close(fd);
  errno = saved;
}

// ---- one path ------------------------------------------------------------------------------------

static bool beneath_is_link(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISLNK(st.st_mode);
}

static bool beneath_same_device(int a, int b) {
  struct stat first, second;
  return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev;
}

// One step of the walk: -1 and errno if it may not be made.
static int beneath_step(int at, const char *name, int flags, mode_t mode) {
  if (!strcmp(name, "..")) return errno = EXDEV, -1;
  int fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd < 0) return -1;
  if (beneath_is_link(fd) || !beneath_same_device(at, fd)) {
    errno = beneath_is_link(fd) ? ELOOP : EXDEV;
    beneath_close(fd);
    return -1;
  }
  return fd;
}

// The way of a kernel without openat2.
static int beneath_walk(int dir, const char *path, int flags, mode_t mode) {
  char copy[PATH_MAX], *rest = NULL;
  if (*path == '/') return errno = EXDEV, -1;
  if (strlen(path) >= sizeof copy) return errno = ENAMETOOLONG, -1;
  strcpy(copy, path);
  int at = fcntl(dir, F_DUPFD_CLOEXEC, 0);
  char *name = strtok_r(copy, "/", &rest);
  while (name && at >= 0) {
    char *next = strtok_r(NULL, "/", &rest);
    int fd = beneath_step(at, name, next ? O_PATH | O_DIRECTORY : flags, next ? 0 : mode);
    beneath_close(at);
    at = fd;
    name = next;
  }
  return at;
}

static int beneath_openat2(int dir, const char *path, int flags, mode_t mode, bool links) {
  struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .mode = mode};
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | (links ? 0 : RESOLVE_NO_SYMLINKS);
  int fd = -1;
  for (int i = 0; i < WALKS_AGAIN; i++) {
    fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return fd;
}

// The descriptor, or -1 and errno. What filters system calls may say EPERM for ENOSYS.
static int beneath_try(const struct dr_beneath *d, const char *path, int flags, mode_t mode, bool links) {
  if (!d->walks) {
    int fd = beneath_openat2(d->fd, path, flags, mode, links);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return fd;
  }
  return beneath_walk(d->fd, path, flags, mode);
}

static int beneath_fail(struct dr_error *e, const char *what, const char *path) {
  return dr_fail_errno(e, errno, "cannot %s %.300s", what, path);
}

int dr_beneath_open(const struct dr_beneath *d, const char *path, int flags, mode_t mode, bool links,
                    struct dr_error *e) {
  int fd = beneath_try(d, path, flags, mode, links);
  return fd < 0 ? beneath_fail(e, "open", path) : fd;
}

int dr_beneath_parent(const struct dr_beneath *d, const char *path, char name[NAME_MAX + 1], struct dr_error *e) {
  const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
  char above[PATH_MAX] = ".";
  errno = ENAMETOOLONG;
  if (strlen(last) > NAME_MAX || (slash && slash - path >= PATH_MAX)) return beneath_fail(e, "open", path);
  errno = EINVAL;
  if (!*last || slash == path || !strcmp(last, ".") || !strcmp(last, "..")) return beneath_fail(e, "open", path);
  if (slash) snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
  strcpy(name, last);
  return dr_beneath_open(d, above, O_PATH | O_DIRECTORY, 0, false, e);
}

// ---- files and directories -----------------------------------------------------------------------

int dr_beneath_open_file(const struct dr_beneath *d, const char *path, struct dr_error *e) {
  int place = beneath_try(d, path, O_PATH, 0, true);
  if (place < 0) return beneath_fail(e, "open", path);
  struct stat st;
  char proc[64];
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", place);
  int fd = -1;
  if (fstat(place, &st) == 0 && !S_ISREG(st.st_mode))
    errno = EINVAL;
  else
    fd = open(proc, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);  // the very file that was looked at
  beneath_close(place);
  return fd < 0 ? beneath_fail(e, "open", path) : fd;
}

// Gives what was just made its mode, which the umask may have cut.
static int beneath_set_mode(int parent, const char *name, mode_t mode, int flags) {
  int fd = beneath_step(parent, name, flags | O_RDONLY | O_NONBLOCK, 0);
  int rc = fd < 0 ? -1 : fchmod(fd, mode);
  beneath_close(fd);
  return rc;
}

int dr_beneath_make_directory(const struct dr_beneath *d, const char *path, mode_t mode, struct dr_error *e) {
  char name[NAME_MAX + 1];
  int parent = dr_beneath_parent(d, path, name, e);
  if (parent < 0) return parent;
  struct stat st;
  int rc = mkdirat(parent, name, mode);
  if (rc == 0)
    rc = beneath_set_mode(parent, name, mode, O_DIRECTORY);
  else if (errno == EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
    rc = 0;
  beneath_close(parent);
  return rc < 0 ? beneath_fail(e, "make the directory", path) : 0;
}

int dr_beneath_make_file(const struct dr_beneath *d, const char *path, mode_t mode, struct dr_error *e) {
  int fd = beneath_try(d, path, O_WRONLY | O_CREAT | O_EXCL, mode, false);
  int rc = fd < 0 ? -1 : fchmod(fd, mode);
  beneath_close(fd);
  return rc < 0 ? beneath_fail(e, "make the file", path) : 0;
}

int dr_beneath_rename(const struct dr_beneath *d, const char *from, const char *to, struct dr_error *e) {
  char old[NAME_MAX + 1], new[NAME_MAX + 1];
  int source = dr_beneath_parent(d, from, old, e);
  if (source < 0) return source;
  int target = dr_beneath_parent(d, to, new, e);
  if (target < 0) return beneath_close(source), target;
  int rc = renameat(source, old, target, new);
  beneath_close(source);
  beneath_close(target);
  return rc < 0 ? beneath_fail(e, "move", from) : 0;
}

static int beneath_read_link(int fd, char path[PATH_MAX]) {
  char proc[64];
  snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(proc, path, PATH_MAX - 1);
  if (n >= 0) path[n] = '\0';
  return (int)n;
}

int dr_beneath_resolve(const struct dr_beneath *d, const char *path, char resolved[PATH_MAX], struct dr_error *e) {
  char top[PATH_MAX];
  int fd = beneath_try(d, path, O_PATH, 0, true), above = -1, length = -1;
  if (fd >= 0 && (above = beneath_read_link(d->fd, top)) >= 0) length = beneath_read_link(fd, resolved);
  beneath_close(fd);
  if (length < 0) return beneath_fail(e, "find", path);
  errno = ENOENT;  // it was moved or removed meanwhile
  if (strncmp(resolved, top, (size_t)above) != 0 || (resolved[above] && resolved[above] != '/'))
    return beneath_fail(e, "find", path);
  int skipped = above + (resolved[above] == '/');
  memmove(resolved, resolved + skipped, (size_t)(length - skipped) + 1);
  if (!*resolved) strcpy(resolved, ".");
  return (int)strlen(resolved);
}

// ---- removal -------------------------------------------------------------------------------------

// What one call of dr_beneath_remove has left to do it with.
struct removal {
  int top;        // the directory that is to go
  unsigned left;  // steps
  uint64_t name;  // of the next directory that is moved into the top
};

static DIR *beneath_list(int at, const char *name) {
  int fd = beneath_step(at, name, O_RDONLY | O_DIRECTORY, 0);
  DIR *list = fd < 0 ? NULL : fdopendir(fd);
  if (!list) beneath_close(fd);
  return list;
}

// The next name, NULL at the end (errno 0) or after an error.
static const char *beneath_next(DIR *list, bool *is_directory) {
  struct dirent *entry;
  do {
    errno = 0;
    entry = readdir(list);
  } while (entry && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")));
  if (!entry) return NULL;
  struct stat st;
  *is_directory = entry->d_type == DT_DIR;
  if (entry->d_type == DT_UNKNOWN && fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
    *is_directory = S_ISDIR(st.st_mode);
  return entry->d_name;
}

static bool beneath_is_full(int errnum) { return errnum == ENOTEMPTY || errnum == EEXIST; }

// Removes one name of a directory: 1 if it is gone, 0 if it is a directory that is not empty, -1 and errno.
static int remove_name(int at, const char *name, bool is_directory) {
  if (unlinkat(at, name, is_directory ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT) return 1;
  return is_directory && beneath_is_full(errno) ? 0 : -1;
}

// Moves a directory up into the top, under a name that is free there.
static int remove_lift(struct removal *r, int at, const char *name) {
  for (;;) {
    char free_name[32];
    snprintf(free_name, sizeof free_name, ".%" PRIu64, r->name++);
    if (renameat(at, name, r->top, free_name) == 0 || errno == ENOENT) return 0;
    if (!beneath_is_full(errno) && errno != ENOTDIR) return -1;
  }
}

// Empties a directory of the top: files go, directories that are not empty move up into the top.
static int remove_contents(struct removal *r, const char *name) {
  DIR *list = beneath_list(r->top, name);
  if (!list) return errno == ENOENT ? 0 : -1;
  int rc = 0;
  bool is_directory = false;
  for (const char *each; rc >= 0 && r->left && (each = beneath_next(list, &is_directory)); r->left--) {
    rc = remove_name(dirfd(list), each, is_directory);
    if (rc == 0) rc = remove_lift(r, dirfd(list), each);
  }
  if (rc >= 0 && r->left && errno) rc = -1;
  int saved = errno;
  closedir(list);
  errno = saved;
  return rc < 0 ? -1 : 0;
}

// One pass over the top. A directory that has directories gives them to the top, so that no path grows and nothing
// recurses, and each is looked at once there. 1 if nothing was met, else 0; -1 and errno.
static int remove_pass(struct removal *r, DIR *list) {
  int rc = 1, met = 0;
  bool is_directory = false;
  rewinddir(list);
  for (const char *each; r->left && (each = beneath_next(list, &is_directory)); r->left--) {
    met = 1;
    rc = remove_name(r->top, each, is_directory);
    if (rc < 0) return -1;
    if (rc == 0 && (remove_contents(r, each) < 0 || remove_name(r->top, each, true) < 0)) return -1;
    if (!r->left) return 0;
  }
  if (r->left && errno) return -1;
  return r->left && !met;
}

static int remove_directory(int at, const char *name, unsigned most) {
  DIR *list = beneath_list(at, name);
  if (!list) return errno == ENOENT ? 1 : -1;
  struct timespec now;  // a number that no call before has used
  clock_gettime(CLOCK_MONOTONIC, &now);
  struct removal r = {.top = dirfd(list), .left = most};
  r.name = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
  int rc = 0;
  while (r.left && rc == 0) rc = remove_pass(&r, list);
  int saved = errno;
  closedir(list);
  errno = saved;
  return rc > 0 ? remove_name(at, name, true) : rc;
}

int dr_beneath_remove(const struct dr_beneath *d, const char *path, unsigned most, struct dr_error *e) {
  char name[NAME_MAX + 1];
  int parent = dr_beneath_parent(d, path, name, e);
  if (parent < 0) return parent == -ENOENT ? 1 : parent;
  struct stat st;
  int rc = fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW);
  if (rc < 0)
    rc = errno == ENOENT ? 1 : -1;
  else
    rc = S_ISDIR(st.st_mode) ? remove_directory(parent, name, most ? most : 1) : remove_name(parent, name, false);
  beneath_close(parent);
  return rc < 0 ? beneath_fail(e, "remove", path) : rc;
}
