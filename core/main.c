// The executable: argv -> runtime -> lua/dockrun/cli.
#include <stdio.h>

#include "dockrun.h"

int main(int argc, char **argv) {
  char why[256];
  dockrun *d = dockrun_open(why, sizeof why);
  if (!d) {
    fprintf(stderr, "dockrun: %s\n", why);
    return 4;
  }
  dockrun_catch_signals(d);
  int code = dockrun_run(d, argc, argv);
  dockrun_close(d);
  return code;
}
