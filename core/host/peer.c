// The process at the other end of a unix socket: unix(7), SO_PEERCRED and SO_PEERGROUPS.
#include <errno.h>
#include <grp.h>
#include <lauxlib.h>
#include <string.h>
#include <sys/socket.h>

#include "data/error.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59  // Linux 4.13
#endif

static int peer_fail(lua_State *L, const char *what) {
  const char *why = strerror(errno);
  lua_pushnil(L);
  const char *message = lua_pushfstring(L, "%s: %s", what, why);
  dr_push_error_text(L, "system", 0, message, strlen(message));
  lua_remove(L, -2);
  return 2;
}

// Pushes the list of the peer's further groups; an empty one on a kernel that cannot tell.
static void peer_push_groups(lua_State *L, int fd) {
  socklen_t size = 0;
  lua_newtable(L);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE) return;
  gid_t *groups = lua_newuserdatauv(L, size, 0);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0) {
    for (size_t i = 0; i < size / sizeof *groups; i++) {
      lua_pushinteger(L, groups[i]);
      lua_rawseti(L, -3, (lua_Integer)i + 1);
    }
  }
  lua_pop(L, 1);
}

// peer.of(fd) -> { pid, uid, gid, groups } of the process that connected, or that listens | nil, err ("system")
static int l_of(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return peer_fail(L, "cannot tell which process it is");
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, peer.pid);
  lua_setfield(L, -2, "pid");
  lua_pushinteger(L, peer.uid);
  lua_setfield(L, -2, "uid");
  lua_pushinteger(L, peer.gid);
  lua_setfield(L, -2, "gid");
  peer_push_groups(L, fd);
  lua_setfield(L, -2, "groups");
  return 1;
}

// peer.group(name) -> gid | nil, err ("invalid")
static int l_group(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const struct group *group = getgrnam(name);
  if (group) {
    lua_pushinteger(L, group->gr_gid);
    return 1;
  }
  lua_pushnil(L);
  const char *message = lua_pushfstring(L, "there is no group '%s'", name);
  dr_push_error_text(L, "invalid", 0, message, strlen(message));
  lua_remove(L, -2);
  return 2;
}

int luaopen_dockrun_core_peer(lua_State *L) {
  static const luaL_Reg module[] = {{"of", l_of}, {"group", l_group}, {NULL, NULL}};
  luaL_newlib(L, module);
  return 1;
}
