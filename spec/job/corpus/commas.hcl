job "commas" {
  type = "batch",
  meta = { a = 1, b = 2, },
  group "g" {
    count = 2,
    task "t" { config = { image = "busybox:1", command = "echo", args = ["x", "y",], }, },
  },
},
