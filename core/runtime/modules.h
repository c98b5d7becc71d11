// The modules of dockrun.core: one line each, here and in modules.c.
#ifndef DOCKRUN_MODULES_H
#define DOCKRUN_MODULES_H

#include <lauxlib.h>

extern const luaL_Reg dr_modules[];

#endif
