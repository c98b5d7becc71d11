job "x" {
  /* meta {
    a = "1"
  }
}
