return job "x" {
  constraint = { { attribute = "${attr.arch}" }, { value = "linux" }, { attribute = "a", operator = "~", value = "b" } },
}
