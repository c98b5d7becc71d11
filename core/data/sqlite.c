// dockrun.core.sqlite: one connection to an SQLite database (https://www.sqlite.org/cintro.html).
//
// Errors are `nil, err`: {kind, message, code}, where code is SQLite's extended result code and kind one of
//   "busy"        another connection has it locked. Nothing here waits for that: the caller sleeps and tries again
//   "full"        no room left on the disk, or in the quota
//   "corrupt"     not a database, or a damaged one
//   "readonly"    opened so, or the file may not be written
//   "constraint"  a row that the schema does not allow
//   "store"       anything else
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

#include "data/error.h"

// ---- the mechanism: no Lua here --------------------------------------------------------------

struct database {
  sqlite3 *handle;       // NULL once closed
  sqlite3_stmt *active;  // the running statement, or one that a Lua error interrupted
  int cached;
};

static bool database_is_io(int rc) { return (rc & 0xff) == SQLITE_IOERR || (rc & 0xff) == SQLITE_CANTOPEN; }

static const char *database_kind(int rc, int errnum) {
  static const struct {
    int code;
    const char *kind;
  } kinds[] = {{SQLITE_BUSY, "busy"},
               {SQLITE_LOCKED, "busy"},
               {SQLITE_PROTOCOL, "busy"},  // lost a race of openings of the write-ahead log
               {SQLITE_FULL, "full"},
               {SQLITE_CORRUPT, "corrupt"},
               {SQLITE_NOTADB, "corrupt"},
               {SQLITE_READONLY, "readonly"},
               {SQLITE_CONSTRAINT, "constraint"}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (kinds[i].code == (rc & 0xff)) return kinds[i].kind;
  return database_is_io(rc) && (errnum == ENOSPC || errnum == EDQUOT) ? "full" : "store";
}

static int database_open(struct database *d, const char *path, bool readonly, int busy_ms) {
  int flags = readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  int rc = sqlite3_open_v2(path, &d->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
  if (rc != SQLITE_OK) return rc;
  sqlite3_busy_timeout(d->handle, busy_ms);
  // The log is then not copied into the file by the last connection that closes: a damaged file does not change.
  return sqlite3_db_config(d->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

// Ends the running statement. A statement holds its locks, and the values bound to it, until then.
static void database_reset(struct database *d) {
  if (!d->active) return;
  sqlite3_reset(d->active);
  sqlite3_clear_bindings(d->active);
  d->active = NULL;
}

// Ends running statements first: one that reads a pragma's table holds a statement of SQLite itself, which is listed
// too.
static void database_finalize_all(struct database *d) {
  database_reset(d);
  for (sqlite3_stmt *s; (s = sqlite3_next_stmt(d->handle, NULL));) sqlite3_finalize(s);
  d->cached = 0;
}

static void database_close(struct database *d) {
  if (!d->handle) return;
  database_finalize_all(d);
  sqlite3_close(d->handle);
  d->handle = NULL;
}

// ---- the border: check arguments, do, push ---------------------------------------------------

static const char DATABASE[] = "dockrun.sqlite.database";
enum { PATH = 1, STATEMENTS };  // user values: the file's name; prepared statements by their text

// Far more than a program has of statements, and a bound for one that writes values into their text.
enum { MAX_CACHED = 200 };

static struct database *check_database(lua_State *L) {
  struct database *d = luaL_checkudata(L, 1, DATABASE);
  if (!d->handle) luaL_error(L, "the database is closed");
  database_reset(d);
  return d;
}

// Pushes nil and the error for the last call on the database at index, which gave rc. Returns 2.
static int database_fail(lua_State *L, int index, int rc) {
  struct database *d = lua_touserdata(L, index);
  int errnum = d->handle && database_is_io(rc) ? sqlite3_system_errno(d->handle) : 0;
  const char *why = d->handle ? sqlite3_errmsg(d->handle) : sqlite3_errstr(rc);
  lua_getiuservalue(L, index, PATH);
  lua_pushfstring(L, "%s: %s", lua_tostring(L, -1), why);
  if (errnum) lua_pushfstring(L, "%s (%s)", lua_tostring(L, -1), strerror(errnum));
  size_t len;
  const char *message = lua_tolstring(L, -1, &len);
  lua_pushnil(L);
  dr_push_error_text(L, database_kind(rc, errnum), 0, message, len);
  lua_pushinteger(L, rc);
  lua_setfield(L, -2, "code");
  return 2;
}

// sqlite.open(path, {readonly = false, busy_ms = 0}?) -> db | nil, err
// Creates the file if it is missing, unless `readonly`. busy_ms is how long SQLite itself may wait for a lock; the
// whole program does nothing else meanwhile, so leave it at 0 if a loop runs.
static int l_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool readonly = false;
  lua_Integer busy_ms = 0;
  lua_settop(L, 2);
  if (!lua_isnil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_getfield(L, 2, "readonly");
    readonly = lua_toboolean(L, -1);
    lua_getfield(L, 2, "busy_ms");
    busy_ms = luaL_optinteger(L, -1, 0);
    luaL_argcheck(L, busy_ms >= 0 && busy_ms <= INT_MAX, 2, "'busy_ms' must be a number of milliseconds of at least 0");
  }
  struct database *d = lua_newuserdatauv(L, sizeof *d, 2);
  *d = (struct database){0};
  luaL_setmetatable(L, DATABASE);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, PATH);
  lua_newtable(L);
  lua_setiuservalue(L, -2, STATEMENTS);
  int rc = database_open(d, path, readonly, (int)busy_ms);
  if (rc == SQLITE_OK) return 1;
  database_fail(L, lua_gettop(L), rc);
  database_close(d);
  return 2;
}

static bool database_is_blank(const char *sql) { return sql[strspn(sql, " \t\r\n;")] == '\0'; }

// Finds or makes the statement of the SQL at index 2.
static int database_prepare(lua_State *L, struct database *d, sqlite3_stmt **stmt) {
  size_t len;
  const char *sql = luaL_checklstring(L, 2, &len), *tail;
  luaL_argcheck(L, len < INT_MAX, 2, "too long");
  lua_getiuservalue(L, 1, STATEMENTS);
  lua_pushvalue(L, 2);
  lua_rawget(L, -2);
  *stmt = lua_touserdata(L, -1);
  lua_pop(L, 2);
  if (*stmt) return SQLITE_OK;
  if (d->cached == MAX_CACHED) {
    lua_newtable(L);
    lua_setiuservalue(L, 1, STATEMENTS);
    database_finalize_all(d);
  }
  int rc = sqlite3_prepare_v3(d->handle, sql, (int)len + 1, SQLITE_PREPARE_PERSISTENT, stmt, &tail);
  if (rc != SQLITE_OK) return rc;
  if (!*stmt || !database_is_blank(tail)) {
    sqlite3_finalize(*stmt);
    luaL_argerror(L, 2, "one statement is expected; exec takes several");
  }
  d->cached++;
  lua_getiuservalue(L, 1, STATEMENTS);
  lua_pushvalue(L, 2);
  lua_pushlightuserdata(L, *stmt);
  lua_rawset(L, -3);
  lua_pop(L, 1);
  return SQLITE_OK;
}

static int database_bind(lua_State *L, int index, sqlite3_stmt *stmt, int at) {
  size_t len;
  const char *text;
  switch (lua_type(L, index)) {
    case LUA_TNIL:
      return sqlite3_bind_null(stmt, at);
    case LUA_TBOOLEAN:
      return sqlite3_bind_int(stmt, at, lua_toboolean(L, index));
    case LUA_TNUMBER:
      if (lua_isinteger(L, index)) return sqlite3_bind_int64(stmt, at, lua_tointeger(L, index));
      return sqlite3_bind_double(stmt, at, lua_tonumber(L, index));
    case LUA_TSTRING:
      text = lua_tolstring(L, index, &len);  // on the stack for as long as the statement runs
      return sqlite3_bind_text64(stmt, at, text, len, SQLITE_STATIC, SQLITE_UTF8);
    default:
      return luaL_argerror(L, index, "a value is nil, a boolean, a number or a string");
  }
}

// The statement of index 2 with the values after it, ready to step; NULL with nil and an error pushed.
static sqlite3_stmt *database_start(lua_State *L, struct database *d) {
  int given = lua_gettop(L) - 2;
  sqlite3_stmt *stmt;
  int rc = database_prepare(L, d, &stmt);
  if (rc != SQLITE_OK) return database_fail(L, 1, rc), NULL;
  int wanted = sqlite3_bind_parameter_count(stmt);
  if (wanted != given) luaL_error(L, "%d values for a statement of %d: %s", given, wanted, lua_tostring(L, 2));
  d->active = stmt;
  for (int i = 1; i <= given; i++)
    if ((rc = database_bind(L, i + 2, stmt, i)) != SQLITE_OK) return database_fail(L, 1, rc), NULL;
  return stmt;
}

// After the last step: the one result on top of the stack, or nil and an error.
static int database_finish(lua_State *L, struct database *d, int rc) {
  int results = rc == SQLITE_DONE ? 1 : database_fail(L, 1, rc);
  database_reset(d);
  return results;
}

static void database_push_column(lua_State *L, sqlite3_stmt *stmt, int i) {
  const void *bytes;
  switch (sqlite3_column_type(stmt, i)) {
    case SQLITE_INTEGER:
      lua_pushinteger(L, sqlite3_column_int64(stmt, i));
      break;
    case SQLITE_FLOAT:
      lua_pushnumber(L, sqlite3_column_double(stmt, i));
      break;
    case SQLITE_NULL:
      lua_pushnil(L);
      break;
    default:
      bytes = sqlite3_column_type(stmt, i) == SQLITE_TEXT ? sqlite3_column_text(stmt, i) : sqlite3_column_blob(stmt, i);
      lua_pushlstring(L, bytes ? bytes : "", (size_t)sqlite3_column_bytes(stmt, i));
  }
}

// db:exec(sql) -> true | nil, err. Any number of statements, without values; what they return is dropped.
static int l_exec(lua_State *L) {
  struct database *d = check_database(L);
  int rc = sqlite3_exec(d->handle, luaL_checkstring(L, 2), NULL, NULL, NULL);
  if (rc != SQLITE_OK) return database_fail(L, 1, rc);
  lua_pushboolean(L, true);
  return 1;
}

// In what follows values are nil (NULL), booleans (0 or 1), integers of 64 bits, floats and strings (TEXT).

// db:run(sql, value…) -> the number of rows inserted, updated or deleted | nil, err
static int l_run(lua_State *L) {
  struct database *d = check_database(L);
  sqlite3_stmt *stmt = database_start(L, d);
  if (!stmt) return 2;
  int rc;
  while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) continue;
  lua_pushinteger(L, sqlite3_stmt_readonly(stmt) ? 0 : sqlite3_changes64(d->handle));
  return database_finish(L, d, rc);
}

// db:rows(sql, value…) -> list of tables by column name, where NULL is absent | nil, err
static int l_rows(lua_State *L) {
  struct database *d = check_database(L);
  sqlite3_stmt *stmt = database_start(L, d);
  if (!stmt) return 2;
  int rc;
  lua_newtable(L);
  for (lua_Integer n = 1; (rc = sqlite3_step(stmt)) == SQLITE_ROW; n++) {
    int columns = sqlite3_data_count(stmt);  // not before the first step, which sees that the schema has changed
    lua_createtable(L, 0, columns);
    for (int i = 0; i < columns; i++) {
      database_push_column(L, stmt, i);
      lua_setfield(L, -2, sqlite3_column_name(stmt, i));
    }
    lua_rawseti(L, -2, n);
  }
  return database_finish(L, d, rc);
}

// db:value(sql, value…) -> the first column of the first row, nil if there is no row or it is NULL | nil, err
static int l_value(lua_State *L) {
  struct database *d = check_database(L);
  sqlite3_stmt *stmt = database_start(L, d);
  if (!stmt) return 2;
  int rc;
  lua_pushnil(L);
  for (bool first = true; (rc = sqlite3_step(stmt)) == SQLITE_ROW; first = false) {
    if (!first) continue;
    database_push_column(L, stmt, 0);
    lua_replace(L, -2);
  }
  return database_finish(L, d, rc);
}

// db:in_transaction() -> whether one was begun, and not ended by a statement or, after some errors, by SQLite itself
static int l_in_transaction(lua_State *L) {
  const struct database *d = luaL_checkudata(L, 1, DATABASE);
  lua_pushboolean(L, d->handle && !sqlite3_get_autocommit(d->handle));
  return 1;
}

static int l_close(lua_State *L) {
  database_close(luaL_checkudata(L, 1, DATABASE));
  return 0;
}

static int l_tostring(lua_State *L) {
  struct database *d = luaL_checkudata(L, 1, DATABASE);
  lua_getiuservalue(L, 1, PATH);
  lua_pushfstring(L, "database (%s%s)", lua_tostring(L, -1), d->handle ? "" : ", closed");
  return 1;
}

int luaopen_dockrun_core_sqlite(lua_State *L) {
  static const luaL_Reg methods[] = {{"exec", l_exec},     {"run", l_run},     {"rows", l_rows},
                                     {"value", l_value},   {"close", l_close}, {"in_transaction", l_in_transaction},
                                     {"__close", l_close}, {"__gc", l_close},  {"__tostring", l_tostring},
                                     {NULL, NULL}};
  static const luaL_Reg module[] = {{"open", l_open}, {NULL, NULL}};
  luaL_newmetatable(L, DATABASE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newlib(L, module);
  return 1;
}
