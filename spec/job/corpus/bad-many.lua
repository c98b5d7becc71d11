return job "cache" {
  typ = "service",
  datacenter = "dc1",
  count = 1,
  group "redis" {
    count = -1,
    task "redis" {
      driver = "exec",
      config = { imgae = "redis:7", args = { "--save", {} }, network_mode = "container:web" },
      env = { LEVEL = {}, ["a=b"] = 1 },
      kill_signal = "SIGFOO",
      kill_timeout = "5 minutes",
      resources = {
        cpu = 0.5, memory = 0,
        network = { mbits = -1, dynamic_ports = { 6379, "adm!n", 70000 }, reserved_ports = { 0, "x", 99999 } },
      },
      hooks = { prstart = function() end, started = "x" },
    },
  },
}
