// Budgets in Lua: dockrun.core.runtime.limit for the current fiber, and dockrun.core.budget, a strict one for job
// files.
#include <lauxlib.h>

#include "runtime/budget.h"
#include "runtime/fiber.h"
#include "runtime/patterns.h"

static const char BUDGET[] = "dockrun.budget";

static double limit_of(lua_State *L, const char *name, double unit) {
  lua_getfield(L, 1, name);
  double value = luaL_optnumber(L, -1, 0) * unit;
  luaL_argcheck(L, value >= 0 && value < 9e15, 1, "expected a limit of at least 0, which is none");
  lua_pop(L, 1);
  return value;
}

static struct dr_limits check_limits(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  return (struct dr_limits){
      .instructions = (lua_Integer)limit_of(L, "instructions", 1),
      .seconds = limit_of(L, "seconds", 1),
      .bytes = (int64_t)limit_of(L, "memory", 1024 * 1024),
      .period = limit_of(L, "period", 1),
  };
}

// limit { instructions, memory, seconds, period }: limits the current fiber from here on, together with every fiber
// that it spawns: instructions of Lua, MB of its memory, seconds of the processor; 0 or absent is no limit. Beyond a
// limit an error is raised in it. Instructions and processor time count anew after `period` seconds. A function of C
// counts as one instruction; the steps of a pattern match count each.
int dr_limit(lua_State *L) {
  struct dr_fiber *f = dr_runtime_get(L)->current;
  struct dr_limits limits = check_limits(L);
  if (!f) return luaL_error(L, "only a fiber can have limits");
  dr_patch_patterns(L);
  if (f->budget) dr_budget_tighten(&limits, f->budget);
  struct dr_budget *budget = dr_budget_new(f->rt, &limits);
  if (!budget) return luaL_error(L, "out of memory");
  dr_budget_release(f->budget);
  f->budget = budget;
  dr_budget_watch(L, budget);
  return 0;
}

// new { instructions, memory, seconds } -> budget. From here on all of Lua grows by `memory` MB at most, and the clock
// of the processor runs; a larger growth raises "not enough memory". In force until it is closed.
static int l_new(lua_State *L) {
  struct dr_limits limits = check_limits(L);
  struct dr_runtime *rt = dr_runtime_get(L);
  limits.period = 0;
  if (rt->strict) return luaL_error(L, "another strict budget is in force");
  struct dr_budget **box = lua_newuserdatauv(L, sizeof(struct dr_budget *), 0);
  *box = NULL;
  luaL_setmetatable(L, BUDGET);
  *box = dr_budget_enforce(rt, &limits);
  return *box ? 1 : luaL_error(L, "out of memory");
}

static struct dr_budget *check_budget(lua_State *L) {
  struct dr_budget **box = luaL_checkudata(L, 1, BUDGET);
  luaL_argcheck(L, *box, 1, "the budget is gone: its state is closing");
  return *box;
}

// budget:watch(coroutine): counts its instructions.
static int l_watch(lua_State *L) {
  const struct dr_budget *b = check_budget(L);
  luaL_checktype(L, 2, LUA_TTHREAD);
  dr_budget_watch(lua_tothread(L, 2), b);
  return 0;
}

// budget:passed() -> "memory", "instructions", "seconds", or nil: the limit that was passed.
static int l_passed(lua_State *L) {
  lua_pushstring(L, dr_budget_passed(L, check_budget(L)));
  return 1;
}

// budget:check(): raises if a limit is passed.
static int l_check(lua_State *L) {
  struct dr_budget *b = check_budget(L);
  return dr_budget_passed(L, b) ? luaL_error(L, "%s", dr_budget_spent(b)) : 0;
}

// budget:close(): no limit is in force any longer. May be called twice.
static int l_close(lua_State *L) {
  dr_budget_lift(check_budget(L));
  return 0;
}

static int l_gc(lua_State *L) {
  struct dr_budget **box = luaL_checkudata(L, 1, BUDGET);
  if (!*box) return 0;
  dr_budget_lift(*box);
  dr_budget_release(*box);
  *box = NULL;
  return 0;
}

static int l_tostring(lua_State *L) {
  const char *spent = dr_budget_spent(check_budget(L));
  lua_pushfstring(L, "budget (%s)", spent ? spent : "not used up");
  return 1;
}

int luaopen_dockrun_core_budget(lua_State *L) {
  static const luaL_Reg methods[] = {{"watch", l_watch},         {"passed", l_passed}, {"check", l_check},
                                     {"close", l_close},         {"__close", l_close}, {"__gc", l_gc},
                                     {"__tostring", l_tostring}, {NULL, NULL}};
  luaL_newmetatable(L, BUDGET);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  static const luaL_Reg module[] = {{"new", l_new}, {NULL, NULL}};
  luaL_newlib(L, module);
  return 1;
}
