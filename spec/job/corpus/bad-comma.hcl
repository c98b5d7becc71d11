job "x" {
  datacenters = ["a" "b"]
}
