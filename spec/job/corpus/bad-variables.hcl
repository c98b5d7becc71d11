job "x" {
  group "same" {
    network {
      port "db-one" {}
      port "DB_ONE" {}
    }
    task "a" {
      config {
        image = "nginx"
        ports = ["db-one"]
      }
      resources { network { dynamic_ports = ["Http", "http"] } }
    }
    task "b" {
      config {
        image = "nginx"
        ports = ["DB_ONE"]
      }
      resources { network { dynamic_ports = ["web-ui", "web_ui"] } }
    }
  }
  group "other" {
    task "a" {
      config { image = "nginx" }
      resources { network { dynamic_ports = ["HTTP"] } }
    }
  }
  group "targets" {
    task "a" {
      config {
        image = "nginx"
        port_map { web = 80 }
      }
      resources {
        network {
          port "web" { to = -1 }
          port "far" { to = -2 }
        }
      }
    }
  }
}
