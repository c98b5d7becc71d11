job "workers" {
  type = "batch"
  task "worker-1" {
    config { image = "busybox:1" command = "  sh  -c true " }
    env { NUMBER = 1 HALF = 0.5 DEBUG = true EMPTY = "" }
    kill_signal = "SIGINT"
    kill_timeout = "1m30s"
  }
  task "worker-2" {
    config { image = "busybox:1" command = "  sh  -c true " }
    env { NUMBER = 2 HALF = 0.5 DEBUG = true EMPTY = "" }
    kill_signal = "SIGINT"
    kill_timeout = 90
  }
}
