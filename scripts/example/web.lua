-- A small web server with a mapped port and limits: `scripts/demo` runs it, `dockrun run scripts/example/web.lua` too.
return job "web" {
  type = "batch",
  meta = { owner = "platform" },
  group "site" {
    task "httpd" {
      driver = "docker",
      config = {
        image = "dockrun-demo:1",
        command = "sh",
        args = { "-c", [[
          mkdir /www && env | sort >/www/index.html
          trap 'exit 0' TERM  # the first process of a container has no default action for signals
          httpd -f -p 8080 -h /www & echo serving on 8080; wait]] },
      },
      env = { LEVEL = "info" },
      kill_timeout = "1s",
      resources = { cpu = 500, memory = 64, network = { mbits = 10, dynamic_ports = { 8080 } } },
    },
  },
}
