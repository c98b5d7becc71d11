-- Values where there should be keys, children where none can be.
return job "values" {
  "stray",
  group "g" {
    group "inner" {},
    task "t" { config = { "image", "nginx" }, task "deeper" {} },
  },
}
