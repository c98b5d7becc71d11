// The executable: argv -> runtime -> lua/dockrun/cli.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dockrun.h"
#include "runtime/output.h"

// Ends at once, with a sentence and without a core file, which would hold secrets. What runs is as after SIGKILL.
static void on_quit(int signal) {
  static const char sentence[] = "\ndockrun: ended by SIGQUIT: containers run on, the next dockrun takes them over\n";
  (void)signal;
  if (write(STDERR_FILENO, sentence, sizeof sentence - 1) < 0) _exit(130);
  _exit(130);
}

int main(int argc, char **argv) {
  char why[256];
  struct dr_output *output = dr_open_standard() ? NULL : dr_output_of_process();
  if (!output) {
    dprintf(STDERR_FILENO, "dockrun: cannot open its output: %s\n", strerror(errno ? errno : ENOMEM));
    return 4;
  }
  dockrun *d = dockrun_open(why, sizeof why);
  if (!d) {
    fprintf(stderr, "dockrun: %s\n", why);
    return 4;
  }
  dr_output_attach(output, d);
  dockrun_catch_signals(d);
  if (signal(SIGQUIT, on_quit) == SIG_IGN) signal(SIGQUIT, SIG_IGN);
  int code = dockrun_run(d, argc, argv);
  dockrun_close(d);
  return code;
}
