job "x" {
  task "a" {
    config {
      image = "nginx"
      port_map { http = 80 nowhere = 81 }
    }
    resources {
      network {
        dynamic_ports = ["http"]
        port "http" {}
        port "web" { static = 70000 }
        port "admin" { static = 8080 }
      }
    }
  }
  task "b" {
    config { image = "nginx" }
    resources { network { reserved_ports = [8080] } }
  }
}
