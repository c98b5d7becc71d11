local image = nil
return job "x" {
  task "t" {
    config = { image = image.name },
  },
}
