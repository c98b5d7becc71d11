local function note(what)
  return function(view) view.noted = what end
end
return job "hooked" {
  hooks = { failed = note "job", on_error = "ignore" },
  group "g" {
    hooks = { restart = note "group" },
    task "t" { config = { image = "busybox" }, hooks = { create = note "task", prestart = note "task" } },
  },
}
