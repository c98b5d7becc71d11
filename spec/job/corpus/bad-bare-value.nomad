job "x" {
  task "t" {
    driver = docker
    config { image = "busybox:1" }
  }
}
