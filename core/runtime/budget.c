// See limits.h.
#include "runtime/budget.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/fiber.h"

enum { SLICE = 1000, RESUMED = 100 };  // instructions between two looks, and what it costs to go on after a wait

struct dr_budget {
  struct dr_runtime *rt;
  struct dr_limits limits;
  int references;
  lua_Integer left;       // instructions
  double used, entered;   // processor time until `entered`, which is on its clock
  double since;           // when the period began
  int64_t taken, before;  // bytes: its own, and Lua's in all when it began
  int64_t refused;        // what it was last refused and has not got since, after Lua's own emergency collection either
  bool told;
  char why[192];
};

static struct dr_budget *current_budget(const struct dr_runtime *rt) {
  return rt->current ? rt->current->budget : NULL;
}

static double seconds_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct dr_budget *dr_budget_new(struct dr_runtime *rt, const struct dr_limits *limits) {
  struct dr_budget *b = calloc(1, sizeof *b);
  if (!b) return NULL;
  *b = (struct dr_budget){
      .rt = rt, .limits = *limits, .references = 1, .left = limits->instructions, .before = rt->memory};
  b->since = seconds_of(CLOCK_MONOTONIC);
  b->entered = seconds_of(CLOCK_THREAD_CPUTIME_ID);
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
  if (b) b->used += seconds_of(CLOCK_THREAD_CPUTIME_ID) - b->entered;
}

void dr_budget_spend(struct dr_budget *b, const char *why) {
  if (!*b->why) snprintf(b->why, sizeof b->why, "%s", why);
}

bool dr_budget_told(struct dr_budget *b) {
  bool told = b->told;
  b->told = true;
  return told;
}

const char *dr_budget_spent(const struct dr_budget *b) { return b && *b->why ? b->why : NULL; }

// ---- instructions and time ---------------------------------------------------------------------

static void look(struct dr_budget *b) {
  const struct dr_limits *most = &b->limits;
  if (most->instructions && b->left <= 0)
    snprintf(b->why, sizeof b->why, "it ran more than %lld instructions: an endless loop?",
             (long long)most->instructions);
  else if (most->seconds > 0 && b->used + seconds_of(CLOCK_THREAD_CPUTIME_ID) - b->entered > most->seconds)
    snprintf(b->why, sizeof b->why, "it used the processor for more than %g seconds", most->seconds);
}

// Whether it would hold more than `most` bytes. Both must have grown too much: garbage of its own is collected
// whenever, and others grow meanwhile.
static bool is_over(const struct dr_budget *b, int64_t growth, int64_t most) {
  return b->limits.bytes && b->taken + growth > most && b->rt->memory - b->before + growth > most;
}

static void look_at_memory(lua_State *L, struct dr_budget *b) {
  if (!b->refused) {
    if (!is_over(b, 0, b->limits.bytes)) return;
    lua_gc(L, LUA_GCCOLLECT);
    if (!is_over(b, 0, b->limits.bytes)) return;
  }
  snprintf(b->why, sizeof b->why, "it used more than %g MB of memory", (double)b->limits.bytes / (1024 * 1024));
}

// A new period begins only between two runs: what does not come back to the loop gets nothing more.
void dr_budget_enter(struct dr_budget *b) {
  if (!b) return;
  double now = seconds_of(CLOCK_MONOTONIC);
  if (b->limits.period > 0 && now - b->since >= b->limits.period) {
    b->since = now;
    b->left = b->limits.instructions;
    b->used = 0;
  }
  b->entered = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  b->left -= RESUMED;
  if (!*b->why) look(b);
}

// Puts where it happened before the reason.
static void locate(lua_State *L, struct dr_budget *b, int level) {
  luaL_where(L, level);
  lua_pushstring(L, b->why);
  lua_concat(L, 2);
  snprintf(b->why, sizeof b->why, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
}

static void on_slice(lua_State *L, lua_Debug *ar) {
  (void)ar;
  struct dr_budget *b = current_budget(dr_runtime_get(L));
  if (!b) {  // a coroutine of one that had limits, run by one that has none
    lua_sethook(L, NULL, 0, 0);
    return;
  }
  if (!*b->why) {
    if (lua_gethookcount(L) == SLICE) b->left -= SLICE;
    look(b);
    if (!*b->why) look_at_memory(L, b);
    if (*b->why) locate(L, b, 0);  // a hook runs in the frame that it interrupts
  }
  if (*b->why || lua_gethookcount(L) != SLICE) dr_budget_watch(L, b);  // which takes long where the calls are deep
  if (*b->why) luaL_error(L, "%s", b->why);
}

void dr_budget_watch(lua_State *L, const struct dr_budget *b) {
  lua_sethook(L, b ? on_slice : NULL, b ? LUA_MASKCOUNT : 0, dr_budget_spent(b) ? 1 : SLICE);
}

// ---- memory ------------------------------------------------------------------------------------

enum { LARGE = 1 << 16, FILLED = 64 };  // bytes that take long to fill, and as many as an instruction's time fills

static void *allocate(void *ud, void *block, size_t old, size_t new) {
  struct dr_runtime *rt = ud;
  int64_t growth = (int64_t) new - (block ? (int64_t)old : 0);
  struct dr_budget *b = current_budget(rt);
  if (b && growth > 0) {
    // Little that is too much is found out by the next instruction. Were it refused here, the error would come out of
    // the middle of whatever function of C wants it.
    if (is_over(b, growth, 2 * b->limits.bytes)) {
      b->refused = growth;
      lua_sethook(rt->running, on_slice, LUA_MASKCOUNT, 1);  // who catches it is not to try for ever
      return NULL;
    }
    if (growth >= b->refused) b->refused = 0;
    if (growth >= LARGE) b->left -= growth / FILLED;
    if (growth >= LARGE || is_over(b, growth, b->limits.bytes)) lua_sethook(rt->running, on_slice, LUA_MASKCOUNT, 1);
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
  lua_setallocf(L, allocate, rt);
}

void dr_uncount_memory(struct dr_runtime *rt, lua_State *L) {
  if (rt->allocate) lua_setallocf(L, rt->allocate, rt->allocate_ud);
  rt->allocate = NULL;
}

// ---- the border --------------------------------------------------------------------------------

void dr_restore_hook(lua_State *L) { dr_budget_watch(L, current_budget(dr_runtime_get(L))); }

static double least(double wanted, double most, double left, double unit) {
  if (!most) return wanted;
  if (left < unit) left = unit;  // 0 is no limit
  return wanted && wanted < left ? wanted : left;
}

// A nested limit cannot exceed what remains of the outer one.
void dr_budget_tighten(struct dr_limits *wanted, const struct dr_budget *b) {
  const struct dr_limits *most = &b->limits;
  wanted->instructions =
      (lua_Integer)least((double)wanted->instructions, (double)most->instructions, (double)b->left, 1);
  wanted->seconds = least(wanted->seconds, most->seconds, most->seconds - b->used, 1e-9);
  wanted->bytes = (int64_t)least((double)wanted->bytes, (double)most->bytes, (double)(most->bytes - b->taken), 1);
  if (most->period > wanted->period) wanted->period = most->period;
}

// ---- functions of C that take long -------------------------------------------------------------

void dr_count_steps(lua_State *L, lua_Integer steps) {
  dr_hear_signal(L, steps);
  struct dr_budget *b = current_budget(dr_runtime_get(L));
  if (!b) return;
  if (!*b->why) {
    b->left -= steps;
    look(b);
    if (!*b->why) return;
    locate(L, b, 1);
  }
  dr_budget_watch(L, b);
  lua_pushstring(L, b->why);
  lua_error(L);
}
