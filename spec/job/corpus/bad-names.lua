return job "my job" {
  group "g" { task "a" { config = { image = "x" } }, task "a" { config = { image = "y" } } },
  group "g" {},
  task "g" { config = { image = "x" } },
  task "-dash" { config = { image = "x" } },
  task "" { config = { image = "x" } },
}
