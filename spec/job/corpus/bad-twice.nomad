job "x" {
  task "t" {
    config { image = "a" }
    resources { cpu = 100 memory = 64 cpu = 200 }
    env { A = "1" }
    env = "B"
  }
  type = "batch"
  type = "service"
}
