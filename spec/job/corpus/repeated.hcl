# What stands several times is the same as a list of it, and what may be merged is.
job "repeated" {
  meta { a = "1" }
  meta { b = "2" }
  meta = { c = "3" }

  constraint { attribute = "$attr.kernel.name" value = "linux" }
  constraint = [{ attribute = "$attr.cpu.arch" value = "amd64" }, { distinct_hosts = true }]
  constraint { attribute = "$attr.os.name" regexp = "debian|ubuntu" }

  task "one" {
    config {
      image = "nginx"
      port_map { http = 80 }
      port_map { https = 443 }
    }
    env { A = "1" }
    env { B = "2" }
    resources {
      network {
        port "http" {}
        port "https" {}
      }
    }
  }

  group "two" { task "t" { config { image = "busybox:1" } } }
  group "three" { task "t" { config { image = "busybox:1" } } }
}
