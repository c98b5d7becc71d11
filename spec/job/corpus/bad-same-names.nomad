job "x" {
  group "g" {
    task "t" { config { image = "a" } }
    task "t" { config { image = "b" } }
  }
  group "g" { task "u" { config { image = "c" } } }
  task "g" { config { image = "d" } }
}
