// dockrun.core.cgroup. The argument `root` is {cgroup = "/sys/fs/cgroup", proc = "/proc"}, the places of the trees;
// these are the defaults. Errors are `nil, err`.
#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <string.h>

#include "host/cgroup.h"

static const char STAT[] = "dockrun.cgroup.stat";

// The strings stay on the stack, so that they live as long as the call.
static struct dr_cgroup_root check_root(lua_State *L, int index) {
  struct dr_cgroup_root root = {0};
  if (lua_isnoneornil(L, index)) return root;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_getfield(L, index, "cgroup");
  root.cgroup = luaL_optstring(L, -1, NULL);
  lua_getfield(L, index, "proc");
  root.proc = luaL_optstring(L, -1, NULL);
  return root;
}

static void get_cgroup_path(lua_State *L, int index, const char *name, char path[PATH_MAX]) {
  lua_getfield(L, index, name);
  const char *text = luaL_optstring(L, -1, "");
  if (strlen(text) >= PATH_MAX) luaL_error(L, "the path of cgroup '%s' is too long", name);
  strcpy(path, text);
  lua_pop(L, 1);
}

// Reads the cgroup at index 1: a pid, or what cgroup.find returned. 0, or -code with e filled.
static int check_cgroup(lua_State *L, int root_index, struct dr_cgroup *g, struct dr_error *e) {
  if (lua_type(L, 1) != LUA_TTABLE) {
    lua_Integer pid = luaL_checkinteger(L, 1);
    luaL_argcheck(L, pid >= 1 && pid <= INT_MAX, 1, "a pid is at least 1");
    struct dr_cgroup_root root = check_root(L, root_index);
    return dr_cgroup_find(g, (pid_t)pid, &root, e);
  }
  memset(g, 0, sizeof *g);
  lua_getfield(L, 1, "version");
  g->version = (int)lua_tointeger(L, -1);
  luaL_argcheck(L, g->version == 1 || g->version == 2, 1, "a pid or what cgroup.find returned is expected");
  if (g->version == 2) return get_cgroup_path(L, 1, "path", g->path[DR_UNIFIED]), 0;
  luaL_argcheck(L, lua_getfield(L, 1, "paths") == LUA_TTABLE, 1, "'paths' is missing");
  for (int c = 0; c < DR_CONTROLLERS; c++) get_cgroup_path(L, -1, dr_controller_names[c], g->path[c]);
  return 0;
}

// cgroup.version(root?) -> 1 | 2
// A hybrid host, whose controllers are in version 1 beside an empty version 2 tree, is 1.
static int l_version(lua_State *L) {
  struct dr_cgroup_root root = check_root(L, 1);
  struct dr_error e;
  int version = dr_cgroup_version(&root, &e);
  if (version < 0) return dr_return_error(L, &e);
  lua_pushinteger(L, version);
  return 1;
}

// cgroup.find(pid, root?) -> {version = 1, paths = {memory, cpu, cpuacct, pids, blkio, cpuset, unified}}
//                          | {version = 2, path}
// Paths are directories; a controller that is off has none. A process that has ended is an error of kind "system", code
// ESRCH (3).
static int l_find(lua_State *L) {
  struct dr_cgroup g;
  struct dr_error e;
  luaL_checkinteger(L, 1);
  if (check_cgroup(L, 2, &g, &e) < 0) return dr_return_error(L, &e);
  lua_createtable(L, 0, 2);
  lua_pushinteger(L, g.version);
  lua_setfield(L, -2, "version");
  if (g.version == 2) {
    lua_pushstring(L, g.path[DR_UNIFIED]);
    lua_setfield(L, -2, "path");
    return 1;
  }
  lua_createtable(L, 0, DR_CONTROLLERS);
  for (int c = 0; c < DR_CONTROLLERS; c++) {
    if (!*g.path[c]) continue;
    lua_pushstring(L, g.path[c]);
    lua_setfield(L, -2, dr_controller_names[c]);
  }
  lua_setfield(L, -2, "paths");
  return 1;
}

static void set_integer(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void push_values(lua_State *L, const struct dr_cgroup_stat *s, int version) {
  for (int i = 0; i < DR_CGROUP_FIELDS; i++) {
    const struct dr_cgroup_field *field = &dr_cgroup_fields[i];
    luaL_getsubtable(L, -1, field->group);
    if (s->value[i] >= 0 && field->source[version - 1].ns)
      set_number(L, field->name, (double)s->value[i] / 1e9);
    else if (s->value[i] >= 0)
      set_integer(L, field->name, s->value[i]);
    lua_pop(L, 1);
  }
}

static void push_io(lua_State *L, const struct dr_cgroup_stat *s) {
  lua_createtable(L, (int)s->io_count, 0);
  for (size_t i = 0; i < s->io_count; i++) {
    const struct dr_cgroup_io *io = &s->io[i];
    lua_createtable(L, 0, 5);
    lua_pushfstring(L, "%d:%d", (int)io->major, (int)io->minor);
    lua_setfield(L, -2, "device");
    set_integer(L, "read_bytes", io->read_bytes);
    set_integer(L, "write_bytes", io->write_bytes);
    set_integer(L, "reads", io->reads);
    set_integer(L, "writes", io->writes);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "io");
}

static void push_pressure(lua_State *L, const struct dr_cgroup_stat *s) {
  static const char *const kinds[] = {"some", "full"};
  for (int i = 0; i < DR_PRESSURES; i++)
    for (int k = 0; k < 2; k++) {
      const struct dr_pressure *p = &s->pressure[i][k];
      if (!p->present) continue;
      luaL_getsubtable(L, -1, "pressure");
      luaL_getsubtable(L, -1, dr_pressure_names[i]);
      lua_createtable(L, 0, 4);
      set_number(L, "avg10", p->avg10);
      set_number(L, "avg60", p->avg60);
      set_number(L, "avg300", p->avg300);
      set_number(L, "total", (double)p->total / 1e6);
      lua_setfield(L, -2, kinds[k]);
      lua_pop(L, 2);
    }
}

// cgroup.read(pid | found, root?) -> {
//   version = 1 | 2,
//   memory = {usage, peak, limit, swap_limit, reservation, inactive_file (bytes), oom_kills},
//   cpu = {usage, throttled (seconds), throttled_periods, periods, shares (v1), weight (v2), quota, period (us)},
//   pids = {current, limit},
//   io = {{device = "8:0", read_bytes, write_bytes, reads, writes}, …},
//   pressure = {cpu | memory | io = {some | full = {avg10, avg60, avg300 (percent), total (seconds)}}},
// }
// swap_limit is memory and swap together, as the engine's MemorySwap. A limit that is not set is absent, and so is a
// value that this kernel does not count (`io` and `pressure` as a whole). A file in a format that the kernel does not
// write is an error of kind "protocol" with the file's name.
static int l_read(lua_State *L) {
  struct dr_cgroup g;
  struct dr_error e;
  if (check_cgroup(L, 2, &g, &e) < 0) return dr_return_error(L, &e);
  // In a userdata, because building the result may raise.
  struct dr_cgroup_stat *s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  luaL_setmetatable(L, STAT);
  if (dr_cgroup_read(s, &g, &e) < 0) return dr_return_error(L, &e);
  lua_createtable(L, 0, 6);
  set_integer(L, "version", g.version);
  push_values(L, s, g.version);
  if (s->has_io) push_io(L, s);
  push_pressure(L, s);
  return 1;
}

static int l_stat_gc(lua_State *L) {
  dr_cgroup_stat_free(luaL_checkudata(L, 1, STAT));
  return 0;
}

// Reads one pair of a group of limits, at the top of the stack: 0, or -code with e filled.
static int check_limit(lua_State *L, struct dr_cgroup_limits *l, const char *group, struct dr_error *e) {
  char name[64];
  int i = 0, is_integer = lua_type(L, -1) == LUA_TNUMBER;
  snprintf(name, sizeof name, "%s.%s", group, lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a name)");
  while (i < DR_LIMITS && strcmp(name, dr_limit_names[i]) != 0) i++;
  if (i == DR_LIMITS)
    return dr_fail(e, "invalid", EINVAL,
                   "unknown limit '%s'; expected memory.limit, memory.swap_limit, memory.reservation, cpu.shares, "
                   "cpu.weight, cpu.quota, cpu.period, pids.limit or cpuset",
                   name);
  if (is_integer) l->value[i] = lua_tointegerx(L, -1, &is_integer);
  if (is_integer) return 0;
  return dr_fail(e, "invalid", EINVAL, "%s: expected a whole number, got %s", name, luaL_tolstring(L, -1, NULL));
}

// Reads one pair of the table of limits, at the top of the stack: 0, or -code with e filled.
static int check_group(lua_State *L, struct dr_cgroup_limits *l, struct dr_error *e) {
  const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a name)";
  if (strcmp(key, "cpuset") == 0) {
    l->cpuset = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    return 0;
  }
  if (!lua_istable(L, -1))
    return dr_fail(e, "invalid", EINVAL, "%s: expected a table of limits, got %s", key, luaL_tolstring(L, -1, NULL));
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    int rc = check_limit(L, l, key, e);
    if (rc < 0) return rc;
  }
  return 0;
}

// cgroup.write(pid | found, {
//   memory = {limit, swap_limit, reservation (bytes)},
//   cpu = {shares | weight, quota, period (us)},
//   pids = {limit},
//   cpuset = "0-1",
// }, root?) -> true | nil, err
// The names are those of cgroup.read. A limit that is left out does not change; -1 removes a limit of memory, quota or
// pids. swap_limit is memory and swap together. Either of shares and weight is converted for the other version.
// Everything is checked ("invalid", with the allowed range) before anything is written. An error of kind "system" says
// which file the kernel refused and why; then the limits before it in this list are in force.
static int l_write(lua_State *L) {
  struct dr_cgroup g;
  struct dr_cgroup_limits limits = {.cpuset = NULL};
  struct dr_error e;
  for (int i = 0; i < DR_LIMITS; i++) limits.value[i] = DR_UNSET;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (check_cgroup(L, 3, &g, &e) < 0) return dr_return_error(L, &e);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1))
    if (check_group(L, &limits, &e) < 0) return dr_return_error(L, &e);
  if (dr_cgroup_write(&g, &limits, &e) < 0) return dr_return_error(L, &e);
  lua_pushboolean(L, true);
  return 1;
}

// Each takes and returns an integer; one out of range is an error of kind "invalid". Formulas: cgroup_limits.c.
static int cgroup_convert(lua_State *L, int64_t (*conversion)(int64_t, struct dr_error *)) {
  struct dr_error e;
  int64_t value = conversion(luaL_checkinteger(L, 1), &e);
  if (value < 0) return dr_return_error(L, &e);
  lua_pushinteger(L, value);
  return 1;
}

static int l_weight_from_shares(lua_State *L) { return cgroup_convert(L, dr_weight_from_shares); }
static int l_shares_from_weight(lua_State *L) { return cgroup_convert(L, dr_shares_from_weight); }

int luaopen_dockrun_core_cgroup(lua_State *L) {
  static const luaL_Reg stat[] = {{"__gc", l_stat_gc}, {"__close", l_stat_gc}, {NULL, NULL}};
  static const luaL_Reg module[] = {{"version", l_version},
                                    {"find", l_find},
                                    {"read", l_read},
                                    {"write", l_write},
                                    {"weight_from_shares", l_weight_from_shares},
                                    {"shares_from_weight", l_shares_from_weight},
                                    {NULL, NULL}};
  luaL_newmetatable(L, STAT);
  luaL_setfuncs(L, stat, 0);
  luaL_newlib(L, module);
  return 1;
}
