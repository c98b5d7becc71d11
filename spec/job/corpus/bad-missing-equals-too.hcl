job "x" {
  task "t" {
    config { image = "busybox:1" }
    kill_signal "SIGINT"
    kill_timeout = "5s"
  }
}
