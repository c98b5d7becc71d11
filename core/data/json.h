// JSON over lua-cjson, with what the engine and people need beyond it: whole numbers stay integers of full precision,
// an empty list can be told from an empty object, and a null member is an absent one.
#ifndef DOCKRUN_JSON_H
#define DOCKRUN_JSON_H

#include <lua.h>

// Pushes the JSON text of the value at idx, or raises (a function, a cycle, a NaN).
void dr_json_encode(lua_State *L, int idx);

// Decodes len bytes. Pushes the value and returns 1, or pushes nil and an error (kind "invalid") and returns 2.
int dr_json_decode(lua_State *L, const char *text, size_t len);

// Pushes an empty list, which is written as [].
void dr_json_push_array(lua_State *L);

int luaopen_dockrun_core_json(lua_State *L);

#endif
