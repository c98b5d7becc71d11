local function worker(n)
  return task("worker-" .. n) {
    config = { image = "busybox:1", command = "  sh  -c true " },
    env = { NUMBER = n, HALF = 0.5, DEBUG = true, EMPTY = "" },
    kill_signal = "SIGINT", kill_timeout = "1m30s",
  }
end
return job "workers" { type = "batch", worker(1), worker(2) }
