#!/usr/bin/env dockrun
# one line
// another
/* several
 * lines, with a { and a " in them */
job /* here */ "comments" /* too */ { # and here
  type /**/ = /* // */ "batch" // job "other" {
  /* task "no" {} */ task "yes" { config { image = "busybox:1" } } # }
} /***/
# the last line has no end