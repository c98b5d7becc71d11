job "one" {}
job "two" {}
