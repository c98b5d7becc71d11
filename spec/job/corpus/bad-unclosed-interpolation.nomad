job "x" {
  task "t" {
    config { image = "app:${meta.tag" }
  }
}
