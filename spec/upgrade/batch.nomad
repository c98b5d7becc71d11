# A batch job with as little as a job can say, and a port block.
job "@BATCH@" {
  type = "batch"

  group "work" {
    network {
      port "http" { to = 80 }
    }

    task "step" {
      driver = "docker"

      config {
        image   = "busybox:1"
        command = "sh"
        args    = ["-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"]
        ports   = ["http"]
      }
    }
  }
}
