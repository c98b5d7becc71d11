# The shape of a job for Nomad 0.4 and a little later: templates, vault, disks, several tasks of a group.
job "desk" {
  datacenters = ["ams1"]
  region      = "global"

  constraint {
    distinct_hosts = true
  }
  constraint {
    attribute = "${attr.driver.docker.version}"
    operator  = "version"
    value     = ">= 1.10"
  }

  group "app" {
    ephemeral_disk {
      size = 200
    }

    task "server" {
      driver = "docker"

      vault {
        policies = ["desk"]
      }

      template {
        data        = <<TEMPLATE
{{ range service "db" }}host={{ .Address }}{{ end }}
TEMPLATE
        destination = "local/app.conf"
      }

      config {
        image = "registry.example:5000/desk/server@sha256:00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff"
      }

      service {
        port = "http"
        check {
          type     = "script"
          command  = "/bin/check"
          args     = ["-q"]
          interval = "1m"
          timeout  = "5s"
        }
      }

      resources {
        cpu    = 250
        memory = 128
        network {
          mbits = 1
          port "http" {}
        }
      }
    }

    task "shipper" {
      driver = "docker"
      config {
        image = "shipper:2"
      }
      env {
        TARGET = "${NOMAD_ADDR_server_http}"
      }
      resources {
        cpu    = 20
        memory = 32
      }
    }
  }
}
