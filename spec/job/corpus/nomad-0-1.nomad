# The shape of a job for Nomad 0.1: ports by lists, attributes by `$attr`, one word of a cluster after the other.
job "shop-cache" {
  region      = "eu"
  datacenters = ["ams1", "fra1"]
  priority    = 60
  all_at_once = false

  update {
    stagger      = "45s"
    max_parallel = 1
  }

  constraint {
    attribute = "$attr.kernel.name"
    value     = "linux"
  }

  group "store" {
    count = 2

    constraint {
      attribute = "$attr.driver.docker"
      value     = "1"
    }

    task "memcached" {
      driver = "docker"

      config {
        image        = "memcached:1.6"
        command      = "memcached -m 64"
        network_mode = "bridge"
      }

      env {
        ZONE = "$attr.unique.hostname"
      }

      resources {
        cpu    = 400
        memory = 96
        disk   = 150
        iops   = 2

        network {
          mbits         = 20
          dynamic_ports = ["11211", "admin"]
        }
      }

      meta {
        tier = "memory"
      }
    }
  }
}
