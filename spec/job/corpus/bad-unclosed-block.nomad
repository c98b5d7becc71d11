job "x" {
  group "g" {
    task "t" {
      config {
        image = "busybox:1"

      env {
        A = "1"
      }
    }
  }
}
