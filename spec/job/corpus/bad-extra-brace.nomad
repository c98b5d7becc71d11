job "x" {
  task "t" {
    config { image = "busybox:1" } }
  }
}
