job "shop" {
  typ         = "service"
  datacenters = ["ams1"]

  group "web" {
    count = -1

    restart {
      mode  = "forever"
      delay = "soon"
    }

    task "front" {
      config {
        imgae        = "nginx"
        network_mode = "container:other"
        args         = { a = 1 }
      }

      env { "A=B" = 1, LIST = [1, 2] }

      resources {
        cpu    = 0.5
        memory = "lots"
        network {
          dynamic_ports  = ["http", "no good", 70000]
          reserved_ports = [0,
            80,
            "x"]
        }
      }
    }
  }
}
