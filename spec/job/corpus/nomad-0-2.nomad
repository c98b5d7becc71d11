# The shape of a job for Nomad 0.2: port blocks, services with checks, restart policies.
job "front" {
  datacenters = ["ams1"]
  type        = "service"

  group "web" {
    count = 1

    restart {
      interval = "10m"
      attempts = 5
      delay    = "20s"
      mode     = "delay"
    }

    task "nginx" {
      driver = "docker"
      user   = "www-data"

      config {
        image = "nginx:1.25"
        port_map {
          http = 80
        }
      }

      service {
        name = "front-web"
        tags = ["public", "http"]
        port = "http"

        check {
          name     = "alive"
          type     = "tcp"
          interval = "15s"
          timeout  = "3s"
        }
        check {
          type     = "http"
          path     = "/health"
          interval = "30s"
          timeout  = "3s"
        }
      }

      resources {
        network {
          mbits = 5
          port "http" {
            static = 8088
          }
          port "metrics" {}
        }
      }
    }
  }
}
