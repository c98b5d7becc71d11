// dockrun.core.beneath: files below a directory that others can write to, see beneath.h. Errors are `nil, err` of kind
// "system" with errno's number as `code`; paths are relative to the directory.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/lua_util.h"
#include "host/beneath.h"

static const char BENEATH[] = "dockrun.beneath", LIST[] = "dockrun.beneath.list";

static struct dr_beneath *check_beneath(lua_State *L) {
  struct dr_beneath *d = luaL_checkudata(L, 1, BENEATH);
  luaL_argcheck(L, d->fd >= 0, 1, "the directory is closed");
  return d;
}

static int beneath_answer(lua_State *L, int rc, const struct dr_error *e) {
  if (rc < 0) return dr_return_error(L, e);
  lua_pushboolean(L, true);
  return 1;
}

static struct dr_beneath *beneath_new(lua_State *L, bool walks) {
  struct dr_beneath *d = lua_newuserdatauv(L, sizeof *d, 0);
  *d = (struct dr_beneath){.fd = -1, .walks = walks};
  luaL_setmetatable(L, BENEATH);
  return d;
}

// beneath.open(path, walks?) -> directory
// The path itself is trusted, but its last component must not be a link. With `walks`, all paths below are walked
// component by component, as on a kernel without openat2.
static int l_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  struct dr_beneath *d = beneath_new(L, lua_toboolean(L, 2));
  d->fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (d->fd >= 0) return 1;
  struct dr_error e;
  dr_fail_errno(&e, errno, "cannot open the directory %.300s", path);
  return dr_return_error(L, &e);
}

// directory:kind(path) -> "directory" | "file" | "link" | "other" | "nothing", size in bytes
static int l_kind(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  char name[NAME_MAX + 1];
  struct stat st = {0};
  int parent = dr_beneath_parent(d, luaL_checkstring(L, 2), name, &e);
  if (parent < 0 && parent != -ENOENT) return dr_return_error(L, &e);
  int rc = parent < 0 ? -ENOENT : fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
  if (parent >= 0) close(parent);
  if (rc < 0 && rc != -ENOENT) {
    dr_fail_errno(&e, -rc, "cannot look at %.300s", lua_tostring(L, 2));
    return dr_return_error(L, &e);
  }
  lua_pushstring(L, rc < 0                ? "nothing"
                    : S_ISDIR(st.st_mode) ? "directory"
                    : S_ISREG(st.st_mode) ? "file"
                    : S_ISLNK(st.st_mode) ? "link"
                                          : "other");
  lua_pushinteger(L, st.st_size);
  return 2;
}

// directory:make_directory(path, mode) -> true, also if it is there already
static int l_make_directory(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  int rc = dr_beneath_make_directory(d, luaL_checkstring(L, 2), (mode_t)luaL_checkinteger(L, 3), &e);
  return beneath_answer(L, rc, &e);
}

// directory:make_file(path, mode) -> true
static int l_make_file(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  return beneath_answer(L, dr_beneath_make_file(d, luaL_checkstring(L, 2), (mode_t)luaL_checkinteger(L, 3), &e), &e);
}

// directory:rename(from, to) -> true
static int l_rename(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  return beneath_answer(L, dr_beneath_rename(d, luaL_checkstring(L, 2), luaL_checkstring(L, 3), &e), &e);
}

static int l_close_list(lua_State *L) {
  DIR **list = lua_touserdata(L, 1);
  if (*list) closedir(*list);
  *list = NULL;
  return 0;
}

// directory:list(path) -> names, none if it is not there
static int l_list(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  DIR **list = lua_newuserdatauv(L, sizeof *list, 0);  // closes it if memory runs out below
  *list = NULL;
  dr_set_gc(L, LIST, l_close_list);
  int fd = dr_beneath_open(d, luaL_checkstring(L, 2), O_RDONLY | O_DIRECTORY, 0, false, &e);
  if (fd < 0 && fd != -ENOENT) return dr_return_error(L, &e);
  *list = fd < 0 ? NULL : fdopendir(fd);
  if (fd >= 0 && !*list) close(fd);
  lua_newtable(L);
  lua_Integer n = 0;
  for (struct dirent *entry; *list && (entry = readdir(*list));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    lua_pushstring(L, entry->d_name);
    lua_rawseti(L, -2, ++n);
  }
  if (*list) closedir(*list);
  *list = NULL;
  return 1;
}

// directory:open_file(path) -> descriptor, size in bytes
// A regular file only. The caller closes the descriptor. Links that stay below the directory are followed.
static int l_open_file(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  struct stat st;
  int fd = dr_beneath_open_file(d, luaL_checkstring(L, 2), &e);
  if (fd < 0) return dr_return_error(L, &e);
  lua_pushinteger(L, fd);
  lua_pushinteger(L, fstat(fd, &st) == 0 ? st.st_size : 0);
  return 2;
}

// directory:resolve(path) -> path | false if nothing is there
// Follows links that stay below the directory.
static int l_resolve(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  char resolved[PATH_MAX];
  int rc = dr_beneath_resolve(d, luaL_checkstring(L, 2), resolved, &e);
  if (rc < 0 && rc != -ENOENT) return dr_return_error(L, &e);
  if (rc < 0)
    lua_pushboolean(L, false);
  else
    lua_pushstring(L, resolved);
  return 1;
}

// directory:remove(path, steps) -> true | false if some of it is left after about so many steps
static int l_remove(lua_State *L) {
  struct dr_beneath *d = check_beneath(L);
  struct dr_error e;
  int rc = dr_beneath_remove(d, luaL_checkstring(L, 2), (unsigned)luaL_checkinteger(L, 3), &e);
  if (rc < 0) return dr_return_error(L, &e);
  lua_pushboolean(L, rc);
  return 1;
}

static int l_close(lua_State *L) {
  struct dr_beneath *d = luaL_checkudata(L, 1, BENEATH);
  if (d->fd >= 0) close(d->fd);
  d->fd = -1;
  return 0;
}

static int l_tostring(lua_State *L) {
  const struct dr_beneath *d = luaL_checkudata(L, 1, BENEATH);
  lua_pushfstring(L, d->fd < 0 ? "directory (closed)" : "directory (descriptor %d)", d->fd);
  return 1;
}

int luaopen_dockrun_core_beneath(lua_State *L) {
  static const luaL_Reg methods[] = {{"kind", l_kind},
                                     {"make_directory", l_make_directory},
                                     {"make_file", l_make_file},
                                     {"rename", l_rename},
                                     {"list", l_list},
                                     {"open_file", l_open_file},
                                     {"resolve", l_resolve},
                                     {"remove", l_remove},
                                     {"close", l_close},
                                     {"__gc", l_close},
                                     {"__close", l_close},
                                     {"__tostring", l_tostring},
                                     {NULL, NULL}};
  static const luaL_Reg module[] = {{"open", l_open}, {NULL, NULL}};
  luaL_newmetatable(L, BENEATH);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
