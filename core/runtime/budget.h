// Budgets: how much of Lua untrusted code may use. A budget that is used up stays so: each instruction and each wait
// then raises, so that no pcall continues. There are two kinds:
// * of a fiber (dr_limit), shared by all fibers that it spawns. A small excess of memory is found at the next
//   instruction.
// * strict, for job files (dr_budget_enforce): one at a time for the whole state. It counts the instructions of the
//   coroutines that it watches, and refuses each block of memory above its limit.
#ifndef DOCKRUN_BUDGET_H
#define DOCKRUN_BUDGET_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct dr_runtime;
struct dr_budget;  // counted by references

struct dr_limits {  // 0: none
  lua_Integer instructions;
  double seconds;  // of the processor
  int64_t bytes;   // of Lua's memory
  double period;   // seconds after which instructions and processor time count anew
};

struct dr_budget *dr_budget_new(struct dr_runtime *rt, const struct dr_limits *limits);  // NULL: no memory
struct dr_budget *dr_budget_hold(struct dr_budget *b);
void dr_budget_release(struct dr_budget *b);

// Before and after the code that runs on it.
void dr_budget_enter(struct dr_budget *b);
void dr_budget_leave(struct dr_budget *b);

// Counts the instructions of a coroutine. NULL: stops counting.
void dr_budget_watch(lua_State *L, const struct dr_budget *b);

// Makes it used up, with this reason.
void dr_budget_spend(struct dr_budget *b, const char *why);

// Whether the reason was reported before: false at the first call.
bool dr_budget_told(struct dr_budget *b);

// Why it is used up, or NULL.
const char *dr_budget_spent(const struct dr_budget *b);

// A strict budget for the code that follows, in force until it is lifted; there must be none. NULL: no memory.
// dr_budget_release frees it. Lifting it twice is fine.
struct dr_budget *dr_budget_enforce(struct dr_runtime *rt, const struct dr_limits *limits);
void dr_budget_lift(struct dr_budget *b);

// The limit that was passed, checked now: "memory", "instructions", "seconds", or NULL.
const char *dr_budget_passed(lua_State *L, struct dr_budget *b);

// Installs an allocator that counts in front of the state's own, and removes it.
void dr_count_memory(struct dr_runtime *rt, lua_State *L);
void dr_uncount_memory(struct dr_runtime *rt, lua_State *L);

// Lowers limits to what remains of b.
void dr_budget_tighten(struct dr_limits *wanted, const struct dr_budget *b);

// For a long function of C: counts so many steps as instructions. Raises if a limit is passed, or if a signal came.
void dr_count_steps(lua_State *L, lua_Integer steps);

// limit { instructions, memory, seconds, period }, of dockrun.core.runtime.
int dr_limit(lua_State *L);

#endif
