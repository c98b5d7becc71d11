return job "x" {}
