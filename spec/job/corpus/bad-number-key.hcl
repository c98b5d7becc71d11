job "x" {
  task "t" {
    config {
      image = "busybox:1"
      port_map { 80 = 8080 }
    }
  }
}
