job "x" {
  group "g" {
    restart {
      delay = 15s
    }
  }
}
