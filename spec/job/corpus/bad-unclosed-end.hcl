job "x" { group "g" { task "t" { config { image = "busybox:1" } }
