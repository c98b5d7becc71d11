# Mounts and logging as Nomad 0.5 to 0.12 wrote them.
job "store" {
  datacenters = ["ams1"]
  task "db" {
    driver = "docker"
    config {
      image     = "db:1"
      isolation = "process"
      mounts = [
        {
          type     = "bind"
          target   = "/data"
          source   = "local/data"
          readonly = false
        },
        {
          type   = "volume"
          target = "/kept"
          source = "kept"
          volume_options {
            no_copy = true
            labels {
              keep = "yes"
            }
          }
        }
      ]
      logging {
        driver = "journald"
        config = [
          {
            tag = "db"
          }
        ]
      }
    }
  }
}
