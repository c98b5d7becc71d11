# The shape of a job for Nomad 0.3: periodic batch work, artifacts, log rotation.
job "nightly-report" {
  datacenters = ["ams1"]
  type        = "batch"

  periodic {
    cron             = "30 3 * * *"
    prohibit_overlap = true
  }

  group "report" {
    task "render" {
      driver       = "docker"
      kill_timeout = "40s"

      artifact {
        source      = "https://files.example/report.tgz"
        destination = "local/"
        options {
          checksum = "md5:00000000000000000000000000000000"
        }
      }

      config {
        image   = "python:3.12-slim"
        command = "python"
        args    = ["/local/render.py", "--month", "${meta.month}"]
      }

      logs {
        max_files     = 4
        max_file_size = 8
      }

      resources {
        cpu    = 800
        memory = 512
      }

      meta {
        month = "last"
      }
    }
  }
}
