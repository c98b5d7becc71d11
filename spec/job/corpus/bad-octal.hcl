job "x" {
  group "g" { count = 08 }
}
