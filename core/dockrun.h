/* The embedding API: the runtime of the dockrun command inside a host program.
 *
 *   char why[256];
 *   dockrun *d = dockrun_open(why, sizeof why);
 *   if (!d) errx(1, "%s", why);
 *   luaL_loadstring(dockrun_lua(d), "return require('dockrun').connect():version().Version");
 *   if (dockrun_call(d, 0) == LUA_OK) puts(lua_tostring(dockrun_lua(d), -1));
 *   dockrun_close(d);
 *
 * One runtime belongs to one thread at a time; several may live in one process. */
#ifndef DOCKRUN_H
#define DOCKRUN_H

#include <lua.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DOCKRUN_API __attribute__((visibility("default")))

typedef struct dr_runtime dockrun;

/* A new Lua state with the standard libraries, the runtime and the search path of the Lua policy. NULL and a sentence
 * in why (of `size` bytes, cut to fit) if it cannot be made. */
DOCKRUN_API dockrun *dockrun_open(char *why, size_t size);

/* Its Lua state, to register functions in, to load chunks on, to read results from. */
DOCKRUN_API lua_State *dockrun_lua(dockrun *d);

/* Like lua_pcall with LUA_MULTRET: calls the function below nargs arguments as a fiber and runs the loop until it has
 * ended and all that it spawned was cancelled and cleaned up. Other calls' fibers go on meanwhile, and after it: a
 * function of C that a fiber calls may call this too. LUA_OK and the results on the stack, or another status, the error
 * value at -2 and its traceback at -1: a string, or empty or nil without one. */
DOCKRUN_API int dockrun_call(dockrun *d, int nargs);

/* What the command does with these arguments (argv[0] is skipped), on a copy of the options. Returns its exit code;
 * prints like the command. */
DOCKRUN_API int dockrun_run(dockrun *d, int argc, char **argv);

/* Lets SIGINT, SIGTERM and SIGHUP (unless it is ignored, as by nohup) cancel what runs; SIGPIPE, SIGXFSZ, SIGUSR1 and
 * SIGUSR2 change nothing. 0, or -errno. Only a program that owns its signals wants this. */
DOCKRUN_API int dockrun_catch_signals(dockrun *d);

/* Closes the state: what is under way on the loop is given up. NULL is fine. In a child of fork() it only frees, and
 * every other function refuses. */
DOCKRUN_API void dockrun_close(dockrun *d);

DOCKRUN_API const char *dockrun_version(void);

#ifdef __cplusplus
}
#endif

#endif
