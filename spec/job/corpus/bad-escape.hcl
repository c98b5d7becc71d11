job "x" {
  meta {
    path = "C:\new\dir"
  }
}
