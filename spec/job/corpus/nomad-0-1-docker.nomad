# Keys of the Docker driver and of jobs as Nomad 0.1 and 0.2 had them, some under other names or in another shape than later.
job "edge-proxy" {
  datacenters = ["ams1"]
  type        = "system"

  update {
    stagger      = 0
    max_parallel = 0
  }

  constraint {
    attribute = "$node.datacenter"
    operator  = "not"
    value     = "ams2"
    hard      = true
  }

  task "proxy" {
    driver   = "docker"
    discover = "proxy"

    config {
      image          = "https://registry.example/proxy:1"
      command        = "proxy"
      args           = "--listen $NOMAD_IP:$NOMAD_PORT_http --name 'edge proxy' --zone \"$meta.zone\" a\\ b"
      hostname       = "edge"
      privileged     = "false"
      SSL            = true
      dns_servers    = ["192.0.2.53"]
      search_domains = ["example.org"]
      load           = ["proxy.tar"]

      labels {
        team = "edge"
      }

      auth {
        username = "reader"
        password = "open"
      }
    }

    meta {
      zone = "north"
    }

    resources {
      network {
        dynamic_ports = [6379, "http"]
      }
    }
  }
}
