job "x" {}
