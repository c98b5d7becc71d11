#include "runtime/modules.h"

int luaopen_dockrun_core_beneath(lua_State *L);
int luaopen_dockrun_core_cgroup(lua_State *L);
int luaopen_dockrun_core_docker(lua_State *L);
int luaopen_dockrun_core_encoding(lua_State *L);
int luaopen_dockrun_core_operations(lua_State *L);
int luaopen_dockrun_core_frames(lua_State *L);
int luaopen_dockrun_core_guard(lua_State *L);
int luaopen_dockrun_core_http(lua_State *L);
int luaopen_dockrun_core_json(lua_State *L);
int luaopen_dockrun_core_peer(lua_State *L);
int luaopen_dockrun_core_ports(lua_State *L);
int luaopen_dockrun_core_process(lua_State *L);
int luaopen_dockrun_core_queue(lua_State *L);
int luaopen_dockrun_core_runtime(lua_State *L);
int luaopen_dockrun_core_sqlite(lua_State *L);
int luaopen_dockrun_core_standard(lua_State *L);

// clang-format off
const luaL_Reg dr_modules[] = {
    {"dockrun.core.beneath", luaopen_dockrun_core_beneath},
    {"dockrun.core.cgroup", luaopen_dockrun_core_cgroup},
    {"dockrun.core.docker", luaopen_dockrun_core_docker},
    {"dockrun.core.encoding", luaopen_dockrun_core_encoding},
    {"dockrun.core.operations", luaopen_dockrun_core_operations},
    {"dockrun.core.frames", luaopen_dockrun_core_frames},
    {"dockrun.core.guard", luaopen_dockrun_core_guard},
    {"dockrun.core.http", luaopen_dockrun_core_http},
    {"dockrun.core.json", luaopen_dockrun_core_json},
    {"dockrun.core.peer", luaopen_dockrun_core_peer},
    {"dockrun.core.ports", luaopen_dockrun_core_ports},
    {"dockrun.core.process", luaopen_dockrun_core_process},
    {"dockrun.core.queue", luaopen_dockrun_core_queue},
    {"dockrun.core.runtime", luaopen_dockrun_core_runtime},
    {"dockrun.core.sqlite", luaopen_dockrun_core_sqlite},
    {"dockrun.core.standard", luaopen_dockrun_core_standard},
    {NULL, NULL},
};
