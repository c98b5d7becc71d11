// The public face of the core: dockrun.h.
#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/error.h"
#include "data/safe.h"
#include "dockrun.h"
#include "modules.h"
#include "runtime/dialect.h"
#include "runtime/output.h"
#include "runtime/patterns.h"
#include "runtime/runtime.h"

// Lua's own allocator with a limit for one block: a script that joins strings without end gets "not enough memory" from
// Lua, and the rest of the process continues.
static void *allocate_block(void *ud, void *block, size_t old_size, size_t size) {
  enum { LARGEST = 256 * 1024 * 1024 };
  (void)ud;
  if (!size) {
    free(block);
    return NULL;
  }
  if (size > LARGEST && (!block || size > old_size)) return NULL;
  void *moved = realloc(block, size);
  return moved || !block || size > old_size ? moved : block;  // Lua takes it that a block can always shrink
}

static int open_libraries(lua_State *L) {
  luaL_openlibs(L);
  dr_patch_patterns(L);
  luaL_requiref(L, "dockrun.core", luaopen_dockrun_core, 0);
  return 0;
}

dockrun *dockrun_open(char *why, size_t size) {
  struct dr_dialect wrong;
  if (dr_has_wrong_lua(&wrong)) {
    snprintf(why, size, "%s", wrong.why);
    return NULL;
  }
  lua_State *L = luaL_newstate();
  if (L) lua_setallocf(L, allocate_block, NULL);
  if (!L) {
    snprintf(why, size, "out of memory");
    return NULL;
  }
  lua_pushcfunction(L, open_libraries);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    snprintf(why, size, "%s", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    return NULL;
  }
  return dr_runtime_get(L);
}

lua_State *dockrun_lua(dockrun *d) { return d->L; }

struct call {
  struct dr_run run;
  int status;
};

static const char in_callback[] = "cannot run here, inside of a callback of the loop; use spawn()";

static int l_sentence(lua_State *L) {
  lua_pushstring(L, lua_touserdata(L, 1));
  return 1;
}

// What dr_run_main does, as a function of Lua, so that what is not the script's error but ours, such as memory that ran
// out while a fiber is made, does not go past the host.
static int l_run(lua_State *L) {
  struct call *call = lua_touserdata(L, 1);
  lua_remove(L, 1);
  call->status = dr_run_main(L, &call->run, lua_gettop(L) - 1);
  return lua_gettop(L);
}

// Puts an error and no traceback in the place of the function and its arguments.
static int refuse_call(lua_State *L, int nargs, const char *why) {
  lua_settop(L, -nargs - 2);
  lua_pushcfunction(L, l_sentence);
  lua_pushlightuserdata(L, (void *)why);
  int status = lua_pcall(L, 1, 1, 0);
  lua_pushnil(L);
  return status == LUA_OK ? LUA_ERRRUN : status;
}

int dockrun_call(dockrun *d, int nargs) {
  struct call call = {.status = LUA_OK};
  if (dr_is_copy(d)) return refuse_call(d->L, nargs, dr_copy_refused);
  if (d->in_uv) return refuse_call(d->L, nargs, in_callback);
  if (!lua_checkstack(d->L, 4)) {
    lua_settop(d->L, -nargs - 2);
    lua_pushnil(d->L);
    lua_pushnil(d->L);
    return LUA_ERRMEM;
  }
  lua_pushcfunction(d->L, l_run);
  lua_insert(d->L, -nargs - 2);
  lua_pushlightuserdata(d->L, &call);
  lua_insert(d->L, -nargs - 2);
  dr_run_enter(d, &call.run);
  int status = lua_pcall(d->L, nargs + 2, LUA_MULTRET, 0);
  dr_run_leave(d, &call.run);
  if (status == LUA_OK) return call.status;
  lua_pushnil(d->L);  // no traceback
  return status;
}

int dockrun_catch_signals(dockrun *d) { return dr_is_copy(d) ? -EPERM : dr_catch_signals(d); }

static const char *push_safe(lua_State *L, int idx) {
  size_t len;
  const char *text = lua_tolstring(L, idx, &len);
  dr_push_safe(L, text, len, DR_SAFE_TEXT);
  return lua_tostring(L, -1);
}

enum { INTERRUPTED = 130, READER_GONE = 141 };  // 128 and the signal's number

// Prints the error value below the top and its traceback at the top, as lua does.
static void print_error(lua_State *L) {
  int traceback = lua_gettop(L);
  bool wants_traceback = dr_push_sentence(L, traceback - 1);
  fflush(stdout);
  fprintf(stderr, "dockrun: %s\n", push_safe(L, -1));
  if (wants_traceback && lua_rawlen(L, traceback)) fprintf(stderr, "%s\n", push_safe(L, traceback));
  lua_settop(L, traceback);
}

static bool raw_field_is(lua_State *L, int idx, const char *name, const char *value) {
  lua_pushstring(L, name);
  lua_rawget(L, idx);
  const char *found = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  bool is = found && (!value || !strcmp(found, value));
  lua_pop(L, 1);
  return is;
}

// The exit code of a script that a signal ended: its error is the one that a signal raises (dr_interrupted). 0 if it
// ended otherwise.
static int interrupted_code(lua_State *L, int error) {
  if (!lua_istable(L, error) || !raw_field_is(L, error, "kind", "cancelled")) return 0;
  if (raw_field_is(L, error, "signal", "SIGPIPE")) return READER_GONE;
  return raw_field_is(L, error, "signal", NULL) ? INTERRUPTED : 0;
}

struct arguments {
  dockrun *d;
  int argc;
  char **argv;
};

// Pushes what a Lua file of the command returns; false if it cannot be loaded, which is printed.
static bool load_command(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  int loaded = lua_pcall(L, 1, 1, 0);
  if (loaded == LUA_ERRMEM) lua_error(L);
  if (loaded == LUA_OK) return true;
  fprintf(stderr, "dockrun: cannot load its Lua files; set DOCKRUN_LUA_PATH to the directory that holds dockrun/\n%s\n",
          luaL_tolstring(L, -1, NULL));
  return false;
}

// The whole command; returns its exit code.
static int run_command(lua_State *L) {
  const struct arguments *a = lua_touserdata(L, 1);
  int code = EXIT_FAILURE;
  if (!load_command(L, "dockrun.cli.scope")) return lua_pushinteger(L, 4), 1;
  lua_call(L, 0, 1);
  lua_toclose(L, -1);
  int top = lua_gettop(L);
  if (!load_command(L, "dockrun.cli")) return lua_pushinteger(L, 4), 1;
  lua_createtable(L, a->argc, 0);
  for (int i = 0; i < a->argc; i++) {
    lua_pushstring(L, a->argv[i]);
    lua_rawseti(L, -2, i);
  }
  int status = dockrun_call(a->d, 1);
  // A script is handed back and called here, so that its traceback ends with it, and not in our own files.
  bool script = status == LUA_OK && lua_isfunction(L, top + 1);
  if (script) status = dockrun_call(a->d, lua_gettop(L) - top - 1);
  if (status == LUA_OK) {
    code = !script && lua_isinteger(L, top + 1) ? (int)lua_tointeger(L, top + 1) : EXIT_SUCCESS;
  } else {
    int interrupted = interrupted_code(L, top + 1);
    if (interrupted) code = interrupted;
    lua_settop(L, top + 2);
    if (code != READER_GONE) print_error(L);
  }
  lua_pushinteger(L, code);
  return 1;
}

// Sees to it that what was written is with its reader. The exit code: results that are lost are a failure.
static int end_command_output(dockrun *d, int code) {
  fflush(stdout);
  int error = d->output ? dr_output_drain(d->output) : 0;
  if (code || !error) return code;
  if (error == -EPIPE) return d->output->ends ? READER_GONE : 0;
  return EXIT_FAILURE;
}

int dockrun_run(dockrun *d, int argc, char **argv) {
  lua_State *L = d->L;
  struct arguments a = {d, argc, argv};
  int code = 4;
  if (dr_is_copy(d) || d->in_uv || !lua_checkstack(L, 2)) {
    fprintf(stderr, "dockrun: %s\n", dr_is_copy(d) ? dr_copy_refused : d->in_uv ? in_callback : "stack overflow");
    return code;
  }
  lua_pushcfunction(L, run_command);
  lua_pushlightuserdata(L, &a);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    code = (int)lua_tointeger(L, -1);
  } else {
    fflush(stdout);
    fprintf(stderr, "dockrun: %s\n", lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error of the runtime");
  }
  lua_pop(L, 1);
  return end_command_output(d, code);
}

void dockrun_close(dockrun *d) {
  if (d && dr_is_copy(d)) return dr_free_copy(d);
  if (d && !d->in_uv) lua_close(d->L);  // a loop that an error has left cannot be ended
}

const char *dockrun_version(void) { return DOCKRUN_VERSION; }
