job "x" {
  group "g" {
    task "t" {
      driver = "raw_exec"
      config {
        image = "busybox:1"
      }
    }
  }
}
