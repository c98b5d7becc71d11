// Files below a directory that others can write to: each path is walked from a descriptor, so that whatever another
// process renames or links meanwhile, nothing outside of that directory is ever met.
#ifndef DOCKRUN_BENEATH_H
#define DOCKRUN_BENEATH_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "data/error.h"

struct dr_beneath {
  int fd;      // of the directory; -1 once it is closed
  bool walks;  // component by component, as on a kernel before 5.6, which has no openat2
};

// Each of these fails with a code of errno, and with these of its own:
//   EXDEV  the path leaves the directory or its file system
//   ELOOP  a component is a link
// A path is relative, "." is the directory itself.

// Opens what is there, with flags of open(2) and the mode of a new file. With `links`, it follows links that stay below
// the directory (a kernel without openat2 follows none). Returns a descriptor.
int dr_beneath_open(const struct dr_beneath *d, const char *path, int flags, mode_t mode, bool links,
                    struct dr_error *e);

// Opens the directory that holds the path's last component, and copies that. Returns a descriptor.
int dr_beneath_parent(const struct dr_beneath *d, const char *path, char name[NAME_MAX + 1], struct dr_error *e);

// Opens a regular file to read, and nothing else: a pipe, a device or a socket is refused (EINVAL) before it is opened,
// since to open one may wait or do something. Returns a descriptor.
int dr_beneath_open_file(const struct dr_beneath *d, const char *path, struct dr_error *e);

// Makes a directory, or an empty file, with exactly this mode. EEXIST if something else is there; a directory may be.
int dr_beneath_make_directory(const struct dr_beneath *d, const char *path, mode_t mode, struct dr_error *e);
int dr_beneath_make_file(const struct dr_beneath *d, const char *path, mode_t mode, struct dr_error *e);

int dr_beneath_rename(const struct dr_beneath *d, const char *from, const char *to, struct dr_error *e);

// The target of a path after its links, relative to the directory. Returns its length.
int dr_beneath_resolve(const struct dr_beneath *d, const char *path, char resolved[PATH_MAX], struct dr_error *e);

// Removes what is there, with all below it, by about `most` steps. Returns 1 if it is gone, 0 if some of it is left.
// However deep and wide it is, three descriptors and one level of directories are enough: see remove_directory.
int dr_beneath_remove(const struct dr_beneath *d, const char *path, unsigned most, struct dr_error *e);

#endif
