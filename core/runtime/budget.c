// Budgets: counting of instructions, processor time and memory, and the errors when a limit is passed. budget.h
// explains the two kinds. It never decides a limit: callers do.
#include "runtime/budget.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/fiber.h"

enum { SLICE = 1000, RESUMED = 100 };  // instructions between two checks, and the price of a resume after a wait

// Invariants:
// * limits never change. why is empty until a limit is passed or dr_budget_spend is called, and never changes to
// another
//   reason; passed is set with the first limit.
// * A budget is strict if it was made by dr_budget_enforce: then no fiber has it, rt->strict is this budget until it is
//   lifted, and period is 0. taken counts for a fiber's budget alone.
// * used grows only in dr_budget_leave; entered is the clock at the last enter.
struct dr_budget {
  struct dr_runtime *rt;
  struct dr_limits limits;
  const struct dr_fiber *owner;  // of a strict budget: the fiber that made it, or NULL
  int references;
  lua_Integer left;       // instructions
  double used, entered;   // processor time until `entered`, which is on its clock
  double since;           // when the period began
  int64_t taken, before;  // bytes: its own, and those of Lua when the budget was made
  int64_t refused;        // bytes of the last refusal, until as many were granted (Lua collects garbage and asks again)
  bool told;
  const char *passed;  // "instructions", "seconds", "memory"
  char why[192];
};

static struct dr_budget *budget_current(const struct dr_runtime *rt) {
  return rt->current ? rt->current->budget : NULL;
}

static double budget_clock(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// The budget that an instruction of L counts for.
static struct dr_budget *budget_of(lua_State *L) {
  const struct dr_runtime *rt = dr_runtime_get(L);
  bool strict = rt->strict && rt->strict->owner == rt->current && !(rt->current && rt->current->co == L);
  return strict ? rt->strict : budget_current(rt);
}

struct dr_budget *dr_budget_new(struct dr_runtime *rt, const struct dr_limits *limits) {
  struct dr_budget *b = calloc(1, sizeof *b);
  if (!b) return NULL;
  *b = (struct dr_budget){
      .rt = rt, .limits = *limits, .references = 1, .left = limits->instructions, .before = rt->memory};
  b->since = budget_clock(CLOCK_MONOTONIC);
  b->entered = budget_clock(CLOCK_THREAD_CPUTIME_ID);
  return b;
}

struct dr_budget *dr_budget_hold(struct dr_budget *b) {
  if (b) b->references++;
  return b;
}

void dr_budget_release(struct dr_budget *b) {
  if (b && --b->references == 0) free(b);
}

void dr_budget_leave(struct dr_budget *b) {
  if (b) b->used += budget_clock(CLOCK_THREAD_CPUTIME_ID) - b->entered;
}

void dr_budget_spend(struct dr_budget *b, const char *why) {
  if (!*b->why) snprintf(b->why, sizeof b->why, "%s", why);
}

bool dr_budget_told(struct dr_budget *b) {
  bool told = b->told;
  b->told = true;
  return told;
}

struct dr_budget *dr_budget_enforce(struct dr_runtime *rt, const struct dr_limits *limits) {
  struct dr_budget *b = dr_budget_new(rt, limits);
  if (b) b->owner = rt->current;
  return rt->strict = b;
}

void dr_budget_lift(struct dr_budget *b) {
  if (b->rt->strict == b) b->rt->strict = NULL;
}

const char *dr_budget_spent(const struct dr_budget *b) { return b && *b->why ? b->why : NULL; }

// ---- instructions and time ---------------------------------------------------------------------

static void budget_check_time(struct dr_budget *b) {
  const struct dr_limits *most = &b->limits;
  if (most->instructions && b->left <= 0) {
    b->passed = "instructions";
    snprintf(b->why, sizeof b->why, "it ran more than %lld instructions: an endless loop?",
             (long long)most->instructions);
  } else if (most->seconds > 0 && b->used + budget_clock(CLOCK_THREAD_CPUTIME_ID) - b->entered > most->seconds) {
    b->passed = "seconds";
    snprintf(b->why, sizeof b->why, "it used the processor for more than %g seconds", most->seconds);
  }
}

// Whether it would hold more than `most` bytes. Both must have grown too much: Lua may collect its garbage at any time,
// and other fibers grow meanwhile.
static bool budget_is_over(const struct dr_budget *b, int64_t growth, int64_t most) {
  return b->limits.bytes && b->taken + growth > most && b->rt->memory - b->before + growth > most;
}

static void budget_check_memory(lua_State *L, struct dr_budget *b) {
  if (!b->refused) {
    if (b == b->rt->strict || !budget_is_over(b, 0, b->limits.bytes)) return;
    lua_gc(L, LUA_GCCOLLECT);
    if (!budget_is_over(b, 0, b->limits.bytes)) return;
  }
  b->passed = "memory";
  snprintf(b->why, sizeof b->why, "it used more than %g MB of memory", (double)b->limits.bytes / (1024 * 1024));
}

const char *dr_budget_passed(lua_State *L, struct dr_budget *b) {
  if (!*b->why) budget_check_memory(L, b);
  if (!*b->why) budget_check_time(b);
  return b->passed;
}

// A new period begins only between two runs of a fiber: code that does not return to the loop gets nothing more.
void dr_budget_enter(struct dr_budget *b) {
  if (!b) return;
  double now = budget_clock(CLOCK_MONOTONIC);
  if (b->limits.period > 0 && now - b->since >= b->limits.period) {
    b->since = now;
    b->left = b->limits.instructions;
    b->used = 0;
  }
  b->entered = budget_clock(CLOCK_THREAD_CPUTIME_ID);
  b->left -= RESUMED;
  if (!*b->why) budget_check_time(b);
}

// Puts the place before the reason.
static void budget_locate(lua_State *L, struct dr_budget *b, int level) {
  luaL_where(L, level);
  lua_pushstring(L, b->why);
  lua_concat(L, 2);
  snprintf(b->why, sizeof b->why, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
}

static void budget_on_slice(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct dr_budget *b = budget_of(L);
  if (!b) {  // a coroutine of a limited fiber, resumed by an unlimited one; or its budget is lifted
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!*b->why) {
    if (lua_gethookcount(L) == SLICE) b->left -= SLICE;
    budget_check_time(b);
    if (!*b->why) budget_check_memory(L, b);
    if (*b->why) budget_locate(L, b, 0);  // a hook runs in the frame that it interrupts
  }
  // Setting a hook is slow in deep calls. A signal may have put its own hook here meanwhile.
  if (lua_gethook(L) == budget_on_slice && (*b->why || lua_gethookcount(L) != SLICE)) dr_budget_watch(L, b);
  dr_hear_signal(L, 0);
  if (*b->why) luaL_error(L, "%s", b->why);
}

void dr_budget_watch(lua_State *L, const struct dr_budget *b) {
  lua_sethook(L, b ? budget_on_slice : NULL, b ? LUA_MASKCOUNT : 0, dr_budget_spent(b) ? 1 : SLICE);
}

// ---- memory ------------------------------------------------------------------------------------

enum {
  LARGE = 1 << 16,
  FILLED = 64
};  // a block that takes long to fill, and the bytes that one instruction's time fills

// A strict budget refuses the block that would pass its limit. It counts what all of Lua holds.
static bool budget_refuse(struct dr_budget *strict, int64_t growth) {
  int64_t most = strict->limits.bytes;
  if (most && strict->rt->memory - strict->before + growth > most) {
    strict->refused = growth;
    return true;
  }
  if (growth >= strict->refused) strict->refused = 0;
  return false;
}

static void *budget_allocate(void *ud, void *block, size_t old, size_t new) {
  struct dr_runtime *rt = ud;
  int64_t growth = (int64_t) new - (block ? (int64_t)old : 0);
  struct dr_budget *b = budget_current(rt);
  if (rt->strict && growth > 0 && budget_refuse(rt->strict, growth)) return NULL;
  if (b && growth > 0) {
    // A small excess is found at the next instruction. A refusal here would raise in the middle of a function of C.
    if (budget_is_over(b, growth, 2 * b->limits.bytes)) {
      b->refused = growth;
      lua_sethook(rt->running, budget_on_slice, LUA_MASKCOUNT, 1);  // so that code that catches the error ends
      return NULL;
    }
    if (growth >= b->refused) b->refused = 0;
    if (growth >= LARGE) b->left -= growth / FILLED;
    if (growth >= LARGE || budget_is_over(b, growth, b->limits.bytes))
      lua_sethook(rt->running, budget_on_slice, LUA_MASKCOUNT, 1);
  }
  void *result = rt->allocate(rt->allocate_ud, block, old, new);
  if (result || !new) {
    rt->memory += growth;
    if (b) b->taken += growth;
  }
  return result;
}

void dr_count_memory(struct dr_runtime *rt, lua_State *L) {
  rt->allocate = lua_getallocf(L, &rt->allocate_ud);
  lua_setallocf(L, budget_allocate, rt);
}

void dr_uncount_memory(struct dr_runtime *rt, lua_State *L) {
  if (rt->allocate) lua_setallocf(L, rt->allocate, rt->allocate_ud);
  rt->allocate = NULL;
}

// ---- limits inside of limits -------------------------------------------------------------------

void dr_restore_hook(lua_State *L) { dr_budget_watch(L, budget_of(L)); }

static double budget_least(double wanted, double most, double left, double unit) {
  if (!most) return wanted;
  if (left < unit) left = unit;  // 0 is no limit
  return wanted && wanted < left ? wanted : left;
}

// A nested limit cannot exceed what remains of the outer one.
void dr_budget_tighten(struct dr_limits *wanted, const struct dr_budget *b) {
  const struct dr_limits *most = &b->limits;
  wanted->instructions =
      (lua_Integer)budget_least((double)wanted->instructions, (double)most->instructions, (double)b->left, 1);
  wanted->seconds = budget_least(wanted->seconds, most->seconds, most->seconds - b->used, 1e-9);
  wanted->bytes =
      (int64_t)budget_least((double)wanted->bytes, (double)most->bytes, (double)(most->bytes - b->taken), 1);
  if (most->period > wanted->period) wanted->period = most->period;
}

// ---- long functions of C --------- -------------------------------------------------------------

void dr_count_steps(lua_State *L, lua_Integer steps) {
  dr_hear_signal(L, steps);
  struct dr_budget *b = budget_current(dr_runtime_get(L));
  if (!b) return;
  if (!*b->why) {
    b->left -= steps;
    budget_check_time(b);
    if (!*b->why) return;
    budget_locate(L, b, 1);
  }
  dr_budget_watch(L, b);
  lua_pushstring(L, b->why);
  lua_error(L);
}
