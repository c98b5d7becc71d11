// dockrun.core.guard: limits for Lua code that nobody trusts. The one of memory stands between the state and its
// allocator, those of instructions and time in a hook in C: whatever the code does, catches or calls, they hold.
#include <lauxlib.h>
#include <stdbool.h>
#include <time.h>

static const char GUARD[] = "dockrun.guard";

enum { LOOK = 100, CLOCK = 16 };  // instructions between two looks at the limits; looks between two at the clock

struct guard {
  lua_Alloc alloc;  // what was there before; NULL once the guard is closed
  void *ud;
  size_t bytes;    // that may still be allocated
  size_t refused;  // bytes; 0 where Lua asked again, after collecting garbage, and got them
  lua_Integer instructions;
  clock_t deadline;
  unsigned looks;
  const char *passed;  // the limit, by its name
};

static void *guarded(void *ud, void *block, size_t osize, size_t nsize) {
  struct guard *guard = ud;
  size_t old = block ? osize : 0;
  size_t more = nsize > old ? nsize - old : 0;
  if (more > guard->bytes) {
    guard->refused = more;
    return NULL;
  }
  void *result = guard->alloc(guard->ud, block, osize, nsize);
  if (!result && nsize > 0) return NULL;
  guard->bytes += old - nsize;
  if (more && more == guard->refused) guard->refused = 0;
  return result;
}

static const char *passed(struct guard *guard) {
  if (!guard->passed && guard->refused) guard->passed = "memory";
  if (!guard->passed && guard->instructions < 0) guard->passed = "instructions";
  if (!guard->passed && clock() > guard->deadline) guard->passed = "seconds";
  return guard->passed;
}

static int over(lua_State *L, const struct guard *guard) {
  return luaL_error(L, "the limit of %s is passed", guard->passed);
}

// Once a limit is passed it raises at every instruction, so that no pcall gets any further.
static void look(lua_State *L, lua_Debug *ar) {
  (void)ar;
  void *ud;
  if (lua_getallocf(L, &ud) != guarded) {
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  struct guard *guard = ud;
  guard->instructions -= LOOK;
  bool quick = !guard->passed && !guard->refused && guard->instructions >= 0;
  if (quick && ++guard->looks % CLOCK) return;
  if (!passed(guard)) return;
  lua_sethook(L, look, LUA_MASKCOUNT, 1);
  over(L, guard);
}

// new(bytes, instructions, seconds) -> guard. From here on the state grows by so many bytes at most, and the clock of
// the processor runs; what needs more memory raises "not enough memory". Holds until it is closed.
static int l_new(lua_State *L) {
  lua_Integer bytes = luaL_checkinteger(L, 1), instructions = luaL_checkinteger(L, 2);
  lua_Number seconds = luaL_checknumber(L, 3);
  luaL_argcheck(L, bytes > 0, 1, "a limit is above 0");
  luaL_argcheck(L, instructions > 0, 2, "a limit is above 0");
  luaL_argcheck(L, seconds > 0 && seconds < 1e9, 3, "a limit is above 0");
  void *ud;
  if (lua_getallocf(L, &ud) == guarded) return luaL_error(L, "there is a guard already");
  struct guard *guard = lua_newuserdatauv(L, sizeof *guard, 0);
  *guard = (struct guard){.bytes = (size_t)bytes, .instructions = instructions};
  guard->deadline = clock() + (clock_t)(seconds * CLOCKS_PER_SEC);
  luaL_setmetatable(L, GUARD);
  guard->alloc = lua_getallocf(L, &guard->ud);
  lua_setallocf(L, guarded, guard);
  return 1;
}

// guard:watch(coroutine): counts its instructions.
static int l_watch(lua_State *L) {
  luaL_checkudata(L, 1, GUARD);
  luaL_checktype(L, 2, LUA_TTHREAD);
  lua_sethook(lua_tothread(L, 2), look, LUA_MASKCOUNT, LOOK);
  return 0;
}

// guard:passed() -> "memory", "instructions", "seconds", or nil: the limit that was passed.
static int l_passed(lua_State *L) {
  lua_pushstring(L, passed(luaL_checkudata(L, 1, GUARD)));
  return 1;
}

// guard:check(): raises where a limit is passed.
static int l_check(lua_State *L) {
  struct guard *guard = luaL_checkudata(L, 1, GUARD);
  return passed(guard) ? over(L, guard) : 0;
}

// guard:close(): no limit holds any more. May be called twice.
static int l_close(lua_State *L) {
  struct guard *guard = luaL_checkudata(L, 1, GUARD);
  if (guard->alloc) lua_setallocf(L, guard->alloc, guard->ud);
  guard->alloc = NULL;
  return 0;
}

int luaopen_dockrun_core_guard(lua_State *L) {
  static const luaL_Reg methods[] = {{"watch", l_watch},   {"passed", l_passed}, {"check", l_check}, {"close", l_close},
                                     {"__close", l_close}, {"__gc", l_close},    {NULL, NULL}};
  luaL_newmetatable(L, GUARD);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  static const luaL_Reg functions[] = {{"new", l_new}, {NULL, NULL}};
  luaL_newlib(L, functions);
  return 1;
}
