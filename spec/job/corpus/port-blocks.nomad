job "port-blocks" {
  group "lone" {
    network {
      port "web" { to = 8080 }
      port "ssh" { static = 2222 }
    }
    task "t" {
      config {
        image = "nginx"
        port_map { app = 3000 "6379" = 7000 }
      }
      resources {
        network {
          dynamic_ports  = ["app", 6379]
          reserved_ports = [9000]
          port metrics {}
          port "dns" { static = 5353 to = 53 }
          port "8081" { static = 18081 }
        }
      }
    }
  }
}
