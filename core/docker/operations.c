// dockrun.core.operations: one row for each operation of the Engine API, from its specification, versions 1.41 to 1.55.
//
// Paths and the names of query parameters are the specification's. A parameter that came after API 1.24, the oldest
// that dockrun speaks, tells its version ("signal@1.42", from the API's changelog), so that an older engine's silence
// about it becomes a clear error. A parameter stays here when a later version drops it.
//
// Two rows may share method and path: POST /images/create pulls with fromImage and imports with fromSrc, and each row
// holds the parameters of its own half. container_stats is a stream; with stream=false it is one document.
#include "docker/operations.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct dr_operation dr_operations[] = {
    {"archive_get", "GET", "/containers/{id}/archive", "path", DR_BODY_NONE, DR_ANSWER_BYTES, 0},
    {"archive_head", "HEAD", "/containers/{id}/archive", "path", DR_BODY_NONE, DR_ANSWER_HEADERS, 0},
    {"archive_put", "PUT", "/containers/{id}/archive", "path noOverwriteDirNonDir copyUIDGID@1.30", DR_BODY_BYTES,
     DR_ANSWER_NONE, 0},
    {"auth", "POST", "/auth", "", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"container_attach", "POST", "/containers/{id}/attach", "detachKeys logs stream stdin stdout stderr", DR_BODY_NONE,
     DR_ANSWER_HIJACK, 0},
    {"container_changes", "GET", "/containers/{id}/changes", "", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"container_create", "POST", "/containers/create", "name platform@1.41", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"container_export", "GET", "/containers/{id}/export", "", DR_BODY_NONE, DR_ANSWER_BYTES, 0},
    {"container_inspect", "GET", "/containers/{id}/json", "size", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"container_kill", "POST", "/containers/{id}/kill", "signal", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_list", "GET", "/containers/json", "all limit size filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"container_logs", "GET", "/containers/{id}/logs", "follow stdout stderr since until@1.35 timestamps tail",
     DR_BODY_NONE, DR_ANSWER_FRAMES, 0},
    {"container_pause", "POST", "/containers/{id}/pause", "", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_prune", "POST", "/containers/prune", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"container_remove", "DELETE", "/containers/{id}", "v force link", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_rename", "POST", "/containers/{id}/rename", "name", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_resize", "POST", "/containers/{id}/resize", "h w", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_restart", "POST", "/containers/{id}/restart", "signal@1.42 t", DR_BODY_NONE, DR_ANSWER_NONE,
     DR_ENGINE_WAITS},
    {"container_start", "POST", "/containers/{id}/start", "detachKeys", DR_BODY_NONE, DR_ANSWER_STATE, 0},
    {"container_stats", "GET", "/containers/{id}/stats", "stream one-shot@1.41", DR_BODY_NONE, DR_ANSWER_LINES, 0},
    {"container_stop", "POST", "/containers/{id}/stop", "signal@1.42 t", DR_BODY_NONE, DR_ANSWER_STATE,
     DR_ENGINE_WAITS},
    {"container_top", "GET", "/containers/{id}/top", "ps_args", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"container_unpause", "POST", "/containers/{id}/unpause", "", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"container_update", "POST", "/containers/{id}/update", "", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"container_wait", "POST", "/containers/{id}/wait", "condition@1.30", DR_BODY_NONE, DR_ANSWER_JSON, DR_ENDLESS},
    {"df", "GET", "/system/df", "type@1.42 verbose@1.52", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"events", "GET", "/events", "since until filters", DR_BODY_NONE, DR_ANSWER_LINES, 0},
    {"exec_create", "POST", "/containers/{id}/exec", "", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"exec_inspect", "GET", "/exec/{id}/json", "", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"exec_resize", "POST", "/exec/{id}/resize", "h w", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"exec_start", "POST", "/exec/{id}/start", "", DR_BODY_JSON, DR_ANSWER_HIJACK, 0},
    {"image_history", "GET", "/images/{name}/history", "platform@1.48", DR_BODY_NONE, DR_ANSWER_JSON, DR_SLASHES},
    {"image_import", "POST", "/images/create", "fromSrc repo tag message changes platform@1.32", DR_BODY_BYTES,
     DR_ANSWER_LINES, 0},
    {"image_inspect", "GET", "/images/{name}/json", "manifests@1.48 platform@1.49", DR_BODY_NONE, DR_ANSWER_JSON,
     DR_SLASHES},
    {"image_list", "GET", "/images/json", "all filters shared-size@1.42 digests manifests@1.47 identity@1.54",
     DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"image_load", "POST", "/images/load", "quiet platform@1.48", DR_BODY_BYTES, DR_ANSWER_LINES, 0},
    {"image_prune", "POST", "/images/prune", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"image_pull", "POST", "/images/create", "fromImage tag platform@1.32", DR_BODY_NONE, DR_ANSWER_LINES, DR_AUTH},
    {"image_push", "POST", "/images/{name}/push", "tag platform@1.46", DR_BODY_NONE, DR_ANSWER_LINES,
     DR_AUTH | DR_SLASHES},
    {"image_remove", "DELETE", "/images/{name}", "force noprune platforms@1.50", DR_BODY_NONE, DR_ANSWER_JSON,
     DR_SLASHES},
    {"image_save", "GET", "/images/{name}/get", "platform@1.48", DR_BODY_NONE, DR_ANSWER_BYTES, DR_SLASHES},
    {"image_search", "GET", "/images/search", "term limit filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"image_tag", "POST", "/images/{name}/tag", "repo tag", DR_BODY_NONE, DR_ANSWER_NONE, DR_SLASHES},
    {"info", "GET", "/info", "", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"network_connect", "POST", "/networks/{id}/connect", "", DR_BODY_JSON, DR_ANSWER_NONE, 0},
    {"network_create", "POST", "/networks/create", "", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"network_disconnect", "POST", "/networks/{id}/disconnect", "", DR_BODY_JSON, DR_ANSWER_NONE, 0},
    {"network_inspect", "GET", "/networks/{id}", "verbose@1.28 scope@1.31", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"network_list", "GET", "/networks", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"network_prune", "POST", "/networks/prune", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"network_remove", "DELETE", "/networks/{id}", "", DR_BODY_NONE, DR_ANSWER_NONE, 0},
    {"system_ping", "GET", "/_ping", "", DR_BODY_NONE, DR_ANSWER_TEXT, DR_UNVERSIONED},
    {"version", "GET", "/version", "", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"volume_create", "POST", "/volumes/create", "", DR_BODY_JSON, DR_ANSWER_JSON, 0},
    {"volume_inspect", "GET", "/volumes/{name}", "", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"volume_list", "GET", "/volumes", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"volume_prune", "POST", "/volumes/prune", "filters", DR_BODY_NONE, DR_ANSWER_JSON, 0},
    {"volume_remove", "DELETE", "/volumes/{name}", "force@1.25", DR_BODY_NONE, DR_ANSWER_NONE, 0},
};

const size_t dr_operations_count = sizeof dr_operations / sizeof *dr_operations;

static int operation_compare(const void *name, const void *row) {
  return strcmp(name, ((const struct dr_operation *)row)->name);
}

// The row of that name, or NULL.
static const struct dr_operation *operation_find(const char *name) {
  return bsearch(name, dr_operations, dr_operations_count, sizeof *dr_operations, operation_compare);
}

// ---- the border: the table for documentation and specs ------------------------------------------

// "signal@1.42 t" -> {{name = "signal", since = "1.42"}, {name = "t"}}
static void operation_push_query(lua_State *L, const char *query) {
  lua_newtable(L);
  for (lua_Integer i = 1; *query; i++) {
    size_t len = strcspn(query, " "), name_len = strcspn(query, "@ ");
    lua_createtable(L, 0, 2);
    lua_pushlstring(L, query, name_len);
    lua_setfield(L, -2, "name");
    if (name_len < len) {
      lua_pushlstring(L, query + name_len + 1, len - name_len - 1);
      lua_setfield(L, -2, "since");
    }
    lua_rawseti(L, -2, i);
    query += len + (query[len] == ' ');
  }
}

static void operation_push(lua_State *L, const struct dr_operation *row) {
  static const char *const bodies[] = {"none", "json", "bytes"};
  static const char *const answers[] = {"none",  "none",  "json",   "text",  "headers",
                                        "bytes", "lines", "frames", "hijack"};
  lua_createtable(L, 0, 7);
  lua_pushstring(L, row->name);
  lua_setfield(L, -2, "name");
  lua_pushstring(L, row->method);
  lua_setfield(L, -2, "method");
  lua_pushstring(L, row->path);
  lua_setfield(L, -2, "path");
  operation_push_query(L, row->query);
  lua_setfield(L, -2, "query");
  lua_pushstring(L, bodies[row->body]);
  lua_setfield(L, -2, "body");
  lua_pushstring(L, answers[row->answer]);
  lua_setfield(L, -2, "answer");
  lua_pushboolean(L, row->flags & DR_AUTH);
  lua_setfield(L, -2, "auth");
}

// find(name) -> {name, method, path, query, body, answer, auth} | nil
static int l_find(lua_State *L) {
  const struct dr_operation *row = operation_find(luaL_checkstring(L, 1));
  if (!row) return 0;
  operation_push(L, row);
  return 1;
}

// The module is the list of all rows, and `find`.
int luaopen_dockrun_core_operations(lua_State *L) {
  static const luaL_Reg module[] = {{"find", l_find}, {NULL, NULL}};
  luaL_newlib(L, module);
  for (size_t i = 0; i < dr_operations_count; i++) {
    operation_push(L, &dr_operations[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}
