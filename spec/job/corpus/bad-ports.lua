return job "ports" {
  group "one" {
    task "a" { config = { image = "x" }, resources = { network = { dynamic_ports = { "http", "http" }, reserved_ports = { 80, 80 } } } },
    task "b" { config = { image = "x", ports = { "htp" }, port_map = { nowhere = 1 } }, resources = { network = { dynamic_ports = { "http" } } } },
  },
  group "two" {
    task "c" { config = { image = "x" }, resources = { network = { port = { web = { static = 80 }, far = { to = 65536 } } } } },
    task "d" {
      config = { image = "x", port_map = { fixed = 81 } },
      resources = { network = { port = { fixed = { to = 80 } } } },
    },
  },
}
