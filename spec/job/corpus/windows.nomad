job "windows" {
  # written on another system
  task "t" {
    config { image = "busybox:1" }
    env {
      TEXT = <<EOF
one
two
EOF
    }
  }
}
