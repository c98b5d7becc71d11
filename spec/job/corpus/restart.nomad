job "again" {
  type = "batch"
  group "g" {
    restart { attempts = 10 interval = "5s" }
    task "inherits" { config { image = "busybox" } }
    task "differs" {
      config { image = "busybox" }
      restart { attempts = 1 delay = "300ms" mode = "delay" }
    }
  }
  task "alone" {
    config { image = "busybox" }
    restart { delay = 0.5 }
  }
}
