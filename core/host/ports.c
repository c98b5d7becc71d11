// Host ports handed out by this runtime: a bitmap per address, checked against the rest of the host.
#include "host/ports.h"

#include <errno.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

// ---- the mechanism: no Lua here ------------------------------------------------------------

enum { PORTS = 65536, WORDS = PORTS / 64, SUMMARIES = WORDS / 64 };

// What cannot be handed out on one address: what is held there, and what is held on an address that overlaps it.
// Two levels, so that a free port is found by looking at no more than 1 + 16 words, however full the map is.
struct table {
  struct table *next;
  struct dr_address address;
  uint64_t blocked[WORDS];   // a bit per port
  uint64_t full[SUMMARIES];  // a bit per word of `blocked` that has no 0 left
  char *owner[PORTS];        // NULL if not held on this address
};

struct ports {
  int from, to;
  uint64_t random;
  unsigned count;
  struct table *tables;
  int hold[PORTS];  // the descriptor of the hold + 1, or 0
};

// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
static uint64_t ports_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// The lowest port of lo..hi that is not blocked, or 0.
static int ports_next_free(const struct table *t, int lo, int hi) {
  if (lo > hi) return 0;
  unsigned word = lo / 64;
  uint64_t free = ~t->blocked[word] & (UINT64_MAX << (lo % 64));
  if (!free) {
    if (++word == WORDS) return 0;
    unsigned summary = word / 64;
    uint64_t open = ~t->full[summary] & (UINT64_MAX << (word % 64));
    while (!open && ++summary < SUMMARIES) open = ~t->full[summary];
    if (!open) return 0;
    word = summary * 64 + __builtin_ctzll(open);
    free = ~t->blocked[word];
  }
  int port = word * 64 + __builtin_ctzll(free);
  return port <= hi ? port : 0;
}

// The table in which this runtime holds the port so that address a cannot have it, or NULL.
static struct table *ports_held_at(const struct ports *p, const struct dr_address *a, int port) {
  for (struct table *t = p->tables; t; t = t->next)
    if (t->owner[port] && dr_address_overlaps(&t->address, a)) return t;
  return NULL;
}

static void ports_refresh(struct ports *p, struct table *t, int port) {
  uint64_t bit = UINT64_C(1) << (port % 64), *word = &t->blocked[port / 64];
  *word = ports_held_at(p, &t->address, port) ? *word | bit : *word & ~bit;
  uint64_t word_bit = UINT64_C(1) << (port / 64 % 64), *summary = &t->full[port / 64 / 64];
  *summary = *word == UINT64_MAX ? *summary | word_bit : *summary & ~word_bit;
}

static struct table *ports_table(struct ports *p, const struct dr_address *a) {
  for (struct table *t = p->tables; t; t = t->next)
    if (IN6_ARE_ADDR_EQUAL(&t->address.bits, &a->bits)) return t;
  struct table *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->address = *a;
  t->next = p->tables;
  p->tables = t;
  for (int port = 1; port < PORTS; port++) ports_refresh(p, t, port);
  return t;
}

// Takes a port that this runtime does not hold: 0, or -code. -EADDRINUSE leaves e unfilled, and *protocol NULL if
// another dockrun process has the hold. The hold comes first, so that two of them never probe one port at the same
// time.
static int ports_take(struct ports *p, struct table *t, int port, const char *owner, bool probe, const char **protocol,
                      struct dr_error *e) {
  int rc = 0, fd = -1;
  *protocol = NULL;
  char *copy = strdup(owner);
  if (!copy) return dr_fail_errno(e, ENOMEM, "cannot hold port %d", port);
  if (!p->hold[port] && (rc = fd = dr_port_hold(port, e)) < 0) goto fail;
  if (probe && (rc = dr_port_probe(&t->address, port, protocol, e)) < 0) goto fail;
  if (fd >= 0) p->hold[port] = fd + 1;
  t->owner[port] = copy;
  p->count++;
  for (struct table *u = p->tables; u; u = u->next) ports_refresh(p, u, port);
  return 0;
fail:
  if (fd >= 0) close(fd);
  free(copy);
  return rc;
}

static void ports_drop(struct ports *p, struct table *t, int port) {
  free(t->owner[port]);
  t->owner[port] = NULL;
  p->count--;
  for (struct table *u = p->tables; u; u = u->next) ports_refresh(p, u, port);
  for (struct table *u = p->tables; u; u = u->next)
    if (u->owner[port]) return;  // another address shares the hold
  close(p->hold[port] - 1);
  p->hold[port] = 0;
}

// Hands out ports from..to (1 to 65535, from <= to). One seed gives one sequence of starting points. NULL: no memory.
static struct ports *ports_new(int from, int to, uint64_t seed) {
  struct ports *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->from = from;
  p->to = to;
  p->random = seed;
  return p;
}

static void ports_release_all(struct ports *p) {
  for (struct table *t = p->tables; t; t = t->next)
    for (int port = 1; p->count && port < PORTS; port++)
      if (t->owner[port]) ports_drop(p, t, port);
}

static void ports_free(struct ports *p) {
  if (!p) return;
  ports_release_all(p);
  for (struct table *t = p->tables, *next; t; t = next) {
    next = t->next;
    free(t);
  }
  free(p);
}

// A free port of the range, from a random start upwards and around: the port, or -code ("exhausted", "system").
static int ports_allocate(struct ports *p, const struct dr_address *a, const char *owner, struct dr_error *e) {
  struct table *t = ports_table(p, a);
  if (!t) return dr_fail_errno(e, ENOMEM, "cannot keep ports of %s", a->text);
  unsigned span = p->to - p->from + 1, elsewhere = 0, bound = 0;
  int start = p->from + (int)((ports_random(&p->random) >> 32) * span >> 32);
  const int legs[2][2] = {{start, p->to}, {p->from, start - 1}};
  for (int leg = 0; leg < 2; leg++) {
    int hi = legs[leg][1];
    for (int port = ports_next_free(t, legs[leg][0], hi); port; port = ports_next_free(t, port + 1, hi)) {
      const char *protocol;
      int rc = ports_take(p, t, port, owner, true, &protocol, e);
      if (rc == 0) return port;
      if (rc != -EADDRINUSE) return rc;
      protocol ? bound++ : elsewhere++;
    }
  }
  return dr_fail(e, "exhausted", ENOSPC,
                 "no free port in %d-%d on %s: %u held by this runtime, %u by other dockrun processes, %u by other "
                 "programs; stop some of them, or widen the range",
                 p->from, p->to, a->text, span - elsewhere - bound, elsewhere, bound);
}

// Exactly this port, in the range or not: 0, or -code ("taken", with holder filled; "system"). Without `probe` the
// kernel is not asked: for a port that a container found running after a restart is already bound to.
static int ports_reserve(struct ports *p, const struct dr_address *a, int port, const char *owner, bool probe,
                         struct dr_holder *holder, struct dr_error *e) {
  const char *protocol;
  struct table *own = ports_held_at(p, a, port);
  if (own) {
    strncpy(holder->name, own->owner[port], sizeof holder->name - 1);
    return dr_port_taken(a, port, holder, e);
  }
  struct table *t = ports_table(p, a);
  if (!t) return dr_fail_errno(e, ENOMEM, "cannot keep ports of %s", a->text);
  int rc = ports_take(p, t, port, owner, probe, &protocol, e);
  if (rc != -EADDRINUSE) return rc;
  dr_port_holder(a, port, protocol, holder);
  return dr_port_taken(a, port, holder, e);
}

// Whether the port was held.
static bool ports_release(struct ports *p, const struct dr_address *a, int port) {
  for (struct table *t = p->tables; t; t = t->next)
    if (IN6_ARE_ADDR_EQUAL(&t->address.bits, &a->bits) && t->owner[port]) {
      ports_drop(p, t, port);
      return true;
    }
  return false;
}

// ---- the border: check arguments, do, push --------------------------------------------------

static const char ALLOCATOR[] = "dockrun.ports.allocator";

static struct ports *check_ports(lua_State *L) {
  struct ports *p = *(struct ports **)luaL_checkudata(L, 1, ALLOCATOR);
  if (!p) luaL_error(L, "the allocator is gone: its state is closing");
  return p;
}

// Reads ip and, if `port` is not NULL, the port after it from the stack: 0, or -code with e filled.
static int check_address(lua_State *L, int index, struct dr_address *a, int *port, struct dr_error *e) {
  int rc = dr_address_parse(a, luaL_checkstring(L, index), e);
  if (rc < 0 || !port) return rc;
  lua_Integer n = luaL_checkinteger(L, index + 1);
  if (n < 1 || n >= PORTS) return dr_fail(e, "invalid", ERANGE, "port %lld is not within 1-65535", (long long)n);
  *port = (int)n;
  return 0;
}

// Pushes nil and the error; if a holder is known, the error has `ip`, `port`, `holder` and, if known, `pid`.
static int ports_push_taken(lua_State *L, const struct dr_address *a, int port, const struct dr_holder *h,
                            const struct dr_error *e) {
  dr_return_error(L, e);
  if (!h->name[0]) return 2;
  lua_pushstring(L, a->text);
  lua_setfield(L, -2, "ip");
  lua_pushinteger(L, port);
  lua_setfield(L, -2, "port");
  lua_pushstring(L, h->name);
  lua_setfield(L, -2, "holder");
  if (h->pid) {
    lua_pushinteger(L, h->pid);
    lua_setfield(L, -2, "pid");
  }
  return 2;
}

static lua_Integer ports_option(lua_State *L, const char *name, lua_Integer otherwise) {
  if (lua_getfield(L, 1, name) == LUA_TNIL) return lua_pop(L, 1), otherwise;
  int is_integer;
  lua_Integer value = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer) luaL_error(L, "ports.new: '%s' must be an integer, not %s", name, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return value;
}

// ports.new{from = 20000, to = 60000, seed = integer?} -> allocator
// One seed replays one sequence of starting points. Without it the kernel's random source is asked (getrandom(2)).
static int l_new(lua_State *L) {
  if (lua_isnoneornil(L, 1)) lua_settop(L, 0), lua_newtable(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer from = ports_option(L, "from", 20000), to = ports_option(L, "to", 60000);
  uint64_t seed = 0;
  if (lua_getfield(L, 1, "seed") != LUA_TNIL)
    seed = (uint64_t)ports_option(L, "seed", 0);
  else if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
    return luaL_error(L, "ports.new: no random seed: %s", strerror(errno));
  if (from < 1 || to >= PORTS || from > to)
    return luaL_error(L, "ports.new: the range %I-%I must lie within 1-65535 and not run backwards", from, to);
  struct ports **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, ALLOCATOR);
  *box = ports_new((int)from, (int)to, seed);
  if (!*box) return luaL_error(L, "ports.new: not enough memory");
  return 1;
}

// In all methods ip is IPv4 or IPv6 text ("0.0.0.0" and "::" both mean every address) and owner names the holder in
// error messages ("cache.redis[0].redis").

// allocator:allocate(ip, owner) -> port | nil, err ("exhausted", "invalid", "system")
static int l_allocate(lua_State *L) {
  struct ports *p = check_ports(L);
  const char *owner = luaL_checkstring(L, 3);
  struct dr_address a;
  struct dr_error e;
  if (check_address(L, 2, &a, NULL, &e) < 0) return dr_return_error(L, &e);
  int port = ports_allocate(p, &a, owner, &e);
  if (port < 0) return dr_return_error(L, &e);
  lua_pushinteger(L, port);
  return 1;
}

static int ports_push_reserved(lua_State *L, bool probe) {
  struct ports *p = check_ports(L);
  const char *owner = luaL_checkstring(L, 4);
  struct dr_address a;
  struct dr_holder holder = {0};
  struct dr_error e;
  int port = 0;
  if (check_address(L, 2, &a, &port, &e) < 0 || ports_reserve(p, &a, port, owner, probe, &holder, &e) < 0)
    return ports_push_taken(L, &a, port, &holder, &e);
  lua_pushboolean(L, true);
  return 1;
}

// allocator:reserve(ip, port, owner) -> true | nil, err ("taken" with port, holder, pid?; "invalid", "system")
static int l_reserve(lua_State *L) { return ports_push_reserved(L, true); }

// allocator:adopt(ip, port, owner): reserve without the kernel's probe, for a port that a container found running is
// bound to already.
static int l_adopt(lua_State *L) { return ports_push_reserved(L, false); }

// allocator:release(ip, port) -> whether it was held
static int l_release(lua_State *L) {
  struct ports *p = check_ports(L);
  struct dr_address a;
  struct dr_error e;
  int port;
  lua_pushboolean(L, check_address(L, 2, &a, &port, &e) == 0 && ports_release(p, &a, port));
  return 1;
}

// allocator:held() -> list of {ip, port, owner}, by address and port
static int l_held(lua_State *L) {
  struct ports *p = check_ports(L);
  lua_createtable(L, (int)p->count, 0);
  lua_Integer n = 0;
  for (struct table *t = p->tables; t; t = t->next)
    for (int port = 1; port < PORTS; port++) {
      if (!t->owner[port]) continue;
      lua_createtable(L, 0, 3);
      lua_pushstring(L, t->address.text);
      lua_setfield(L, -2, "ip");
      lua_pushinteger(L, port);
      lua_setfield(L, -2, "port");
      lua_pushstring(L, t->owner[port]);
      lua_setfield(L, -2, "owner");
      lua_rawseti(L, -2, ++n);
    }
  return 1;
}

static int l_len(lua_State *L) {
  lua_pushinteger(L, check_ports(L)->count);
  return 1;
}

static int l_tostring(lua_State *L) {
  struct ports *p = check_ports(L);
  lua_pushfstring(L, "port allocator (%d-%d, %d held)", p->from, p->to, (int)p->count);
  return 1;
}

// __close gives every port back; the allocator can go on being used.
static int l_close(lua_State *L) {
  struct ports **box = luaL_checkudata(L, 1, ALLOCATOR);
  if (*box) ports_release_all(*box);
  return 0;
}

static int l_gc(lua_State *L) {
  struct ports **box = luaL_checkudata(L, 1, ALLOCATOR);
  ports_free(*box);
  *box = NULL;
  return 0;
}

// ports.probe(ip, port) -> true | nil, err ("taken" with port, holder, pid?; "invalid", "system")
static int l_probe(lua_State *L) {
  struct dr_address a;
  struct dr_holder holder = {0};
  struct dr_error e;
  const char *protocol;
  int port = 0, rc = check_address(L, 1, &a, &port, &e);
  if (rc == 0) rc = dr_port_probe(&a, port, &protocol, &e);
  if (rc == -EADDRINUSE) {
    dr_port_holder(&a, port, protocol, &holder);
    dr_port_taken(&a, port, &holder, &e);
  }
  if (rc < 0) return ports_push_taken(L, &a, port, &holder, &e);
  lua_pushboolean(L, true);
  return 1;
}

// ports.address(text) -> the one spelling of an IP address, 4 | 6 by its syntax | nil, err ("invalid")
static int l_address(lua_State *L) {
  struct dr_address a;
  struct dr_error e;
  size_t len;
  const char *text = luaL_checklstring(L, 1, &len);
  luaL_argcheck(L, strlen(text) == len, 1, "contains a NUL");
  if (dr_address_parse(&a, text, &e) < 0) return dr_return_error(L, &e);
  lua_pushstring(L, a.text);
  lua_pushinteger(L, strchr(text, ':') ? 6 : 4);
  return 2;
}

int luaopen_dockrun_core_ports(lua_State *L) {
  static const luaL_Reg methods[] = {{"allocate", l_allocate},   {"reserve", l_reserve},
                                     {"adopt", l_adopt},         {"release", l_release},
                                     {"held", l_held},           {"__len", l_len},
                                     {"__close", l_close},       {"__gc", l_gc},
                                     {"__tostring", l_tostring}, {NULL, NULL}};
  static const luaL_Reg module[] = {{"new", l_new}, {"probe", l_probe}, {"address", l_address}, {NULL, NULL}};
  luaL_newmetatable(L, ALLOCATOR);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
