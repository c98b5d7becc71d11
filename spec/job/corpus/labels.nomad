job bare-word {
  group "quoted" {
    task bare { config { image = "busybox:1" } }
    task "with.dots-and_more" { config { image = "busybox:1" } }
  }
  group { in-braces { task { also-in-braces { config { image = "busybox:1" } } } } }
  group {
    name = "by-name"
    task { name = "too" config { image = "busybox:1" } }
  }
  task "alone"
  {
    config { image = "busybox:1" }
  }
}
