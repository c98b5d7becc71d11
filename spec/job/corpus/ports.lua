-- Every way to ask for a port.
return job "ports" {
  group "lone" {
    network = { port = { web = { to = 8080 }, ssh = { static = 2222 } } },
    task "t" {
      config = { image = "nginx", port_map = { app = 3000, ["6379"] = 7000 } },
      resources = {
        network = {
          dynamic_ports = { "app", 6379 }, reserved_ports = { 9000 },
          port = { metrics = {}, dns = { static = 5353, to = 53 }, ["8081"] = { static = 18081 } },
        },
      },
    },
  },
  group "pair" {
    network = { port = { http = { to = 80 }, admin = {} } },
    task "a" { config = { image = "nginx", ports = { "http" } } },
    task "b" { config = { image = "nginx" }, resources = { network = { dynamic_ports = { "own" } } } },
  },
}
