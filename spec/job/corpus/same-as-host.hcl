job "x" {
  group "g" {
    network {
      port "web" { to = -1 }
      port "8080" { to = -1 }
      port "dns" {
        static = 5353
        to     = -1
      }
    }
    task "t" {
      config { image = "nginx" }
    }
  }
}
