job "plain" {
  group "one" { task "a" { config { image = "busybox" } } }
  group "two" { task "b" { config { image = "localhost:5000/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" } } }
}
