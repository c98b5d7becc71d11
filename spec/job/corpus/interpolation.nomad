job "interpolation" {
  constraint { attribute = "${attr.kernel.name}" value = "linux" }
  constraint { attribute = "$attr.cpu.arch" operator = "!=" value = "arm" }

  task "t" {
    config {
      image   = "${meta["registry.host"]}/app:${meta.tag}"
      command = "run"
      args    = ["${NOMAD_IP}:${NOMAD_PORT_http}", "${a "nested \n quote" {b} }", "$${literal}", "${one
two}"]
    }
    env {
      ADDRESS = "${env.HOST}-${node.name}"
      BRACES  = "}{ ${x{y{z}}} }{"
    }
    resources { network { dynamic_ports = ["http"] } }
  }
}
