job "x" {
  task "t" {
    config {
      image   = "busybox:1"
      command = "sleep"
      args    = ["1",
        "2"
    }
  }
}
