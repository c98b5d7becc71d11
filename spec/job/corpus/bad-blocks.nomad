job "x" {
  group "g" {
    restart { attempts = 1 }
    restart { attempts = 2 }
    meta "label" { a = 1 }
    task = "t"
    count { n = 1 }
  }
  constraint = "linux"
}
