return job "j" { task "t" { config = { image = "busybox", args = { "-x" } } } }
