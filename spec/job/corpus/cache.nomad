# A cache of two, as Nomad would be asked for it.
job "cache" {
  type = "service"

  meta {
    owner = "platform"
  }

  constraint {
    attribute = "$attr.kernel.name"
    value     = "linux"
  }

  group "redis" {
    count = 2

    restart {
      attempts = 3
      interval = "5m"
      delay    = "15s"
      mode     = "delay"
    }

    task "redis" {
      driver = "docker"

      config {
        image        = "redis:7"
        command      = "redis-server"
        args         = ["--save", ""]
        network_mode = "bridge"
      }

      env {
        LEVEL = "info"
      }

      resources {
        cpu    = 500 # MHz
        memory = 256 # MB

        network {
          mbits          = 10
          dynamic_ports  = [6379, "admin"]
          reserved_ports = [22333]
        }
      }
    }
  }
}
