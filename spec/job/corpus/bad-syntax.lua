return job "x" {
  group "g" {
    count = ,
  },
}
