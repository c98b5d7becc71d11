// Limits: what a stranger's function may use of Lua, together with every fiber that it spawns. What is used up stays
// so: from then on each instruction and each wait raises, so that no pcall gets any further.
#ifndef DOCKRUN_BUDGET_H
#define DOCKRUN_BUDGET_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct dr_runtime;
struct dr_budget;  // shared by the fibers that use it, counted by references

struct dr_limits {  // 0: none
  lua_Integer instructions;
  double seconds;  // of the processor
  int64_t bytes;   // of Lua's memory
  double period;   // seconds after which instructions and processor time count anew
};

struct dr_budget *dr_budget_new(struct dr_runtime *rt, const struct dr_limits *limits);  // NULL: no memory
struct dr_budget *dr_budget_hold(struct dr_budget *b);
void dr_budget_release(struct dr_budget *b);

// Around what runs on it.
void dr_budget_enter(struct dr_budget *b);
void dr_budget_leave(struct dr_budget *b);

// Counts the instructions of a coroutine that runs on b, which may be NULL.
void dr_budget_watch(lua_State *L, const struct dr_budget *b);

// Uses it up.
void dr_budget_spend(struct dr_budget *b, const char *why);

// Whether somebody has been told already that it is used up. True from the second call on.
bool dr_budget_told(struct dr_budget *b);

// Why it is used up, or NULL.
const char *dr_budget_spent(const struct dr_budget *b);

// Puts an allocator that counts in front of the state's own, and takes it away again.
void dr_count_memory(struct dr_runtime *rt, lua_State *L);
void dr_uncount_memory(struct dr_runtime *rt, lua_State *L);

// Lowers limits to what remains of b.
void dr_budget_tighten(struct dr_limits *wanted, const struct dr_budget *b);

// A function of C that takes long has made so many steps, which count as instructions. Raises if a limit is passed, or
// if a signal came.
void dr_count_steps(lua_State *L, lua_Integer steps);

#endif
