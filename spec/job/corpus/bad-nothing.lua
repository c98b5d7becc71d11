job "forgotten" {}
