-- No builders: tables alone, named by key or by `name`.
return {
  name = "plain",
  groups = {
    { name = "one", tasks = { { name = "a", config = { image = "busybox" } } } },
    { name = "two", task = { b = { config = { image = "localhost:5000/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" } } } },
  },
}
