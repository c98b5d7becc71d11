job "quoted-values" {
  all_at_once = "true"
  priority    = "50"
  group "g" {
    count = "3"
    restart { attempts = "4" interval = "600" delay = "2" mode = "fail" }
    constraint { distinct_hosts = "true" }
    task "t" {
      config { image = "busybox:1" command = "sleep" args = [60, 0.5, true, "x"] port_map { web = "80" } }
      env { NUMBER = 1 HALF = 0.5 DEBUG = true }
      kill_timeout = "7"
      resources { cpu = "250" memory = "64" network { mbits = "100" port "web" { static = "8081" } } }
    }
  }
}
