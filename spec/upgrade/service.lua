-- A service with many options that have defaults, given in one task and left out in the other.
return job "@SERVICE@" {
  type = "service",
  meta = { owner = "platform" },
  group "web" {
    count = 2,
    meta = { tier = "front" },
    task "full" {
      driver = "docker",
      user = "root",
      kill_signal = "SIGTERM",
      kill_timeout = "2s",
      config = {
        image = "busybox:1", command = "sh", args = { "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done" },
        work_dir = "/tmp", hostname = "full", labels = { team = "x" }, init = true, extra_hosts = { "db:192.0.2.1" },
        dns_servers = { "192.0.2.53" }, dns_search_domains = { "example.org" }, cap_drop = { "mknod" },
        ulimit = { nofile = "1024:2048" }, sysctl = { ["net.core.somaxconn"] = "512" }, pids_limit = 100, shm_size = 1048576,
        volumes = { "local/conf:/etc/conf", "../alloc/data:/data" },
        mount = { { type = "tmpfs", target = "/scratch", tmpfs_options = { size = 65536 } } },
        logging = { type = "json-file", config = { ["max-size"] = "1m" } },
        memory_hard_limit = 64, readonly_rootfs = true, security_opt = { "no-new-privileges" },
      },
      env = { LEVEL = "info", WHERE = "${NOMAD_TASK_NAME}" },
      checks = { { type = "script", name = "true", command = "/bin/true", interval = "1s", timeout = "5s" } },
      resources = { cpu = 200, memory = 32, network = { mbits = 10, dynamic_ports = { 8080, "admin" } } },
    },
    task "plain" {
      config = { image = "busybox:1", command = "sh", args = { "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done" } },
    },
  },
}
