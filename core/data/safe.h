// The one function between the text of strangers and a terminal.
#ifndef DOCKRUN_SAFE_H
#define DOCKRUN_SAFE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum dr_safe {
  DR_SAFE_LINE,   // all that can move a cursor is shown as an escape, line breaks and tabs too
  DR_SAFE_TEXT,   // line breaks and tabs stay
  DR_SAFE_STRIP,  // as DR_SAFE_TEXT, and the rest is dropped instead of shown
};

// Pushes the text without what a terminal would act on: control characters (C0 and C1), marks that change the direction
// of text, and bytes that are not UTF-8. "\27[31m" -> "\\x1b[31m", U+202E -> "\\u{202e}".
void dr_push_safe(lua_State *L, const char *text, size_t len, enum dr_safe how);

#endif
