-- The memory of a process while it waits.
local compare = require("spec.bench.compare").compare
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local peers = require "spec.bench.peers"
local process = require "spec.process"

-- Says that it is ready, waits without work, and ends at once when it is told to.
local SERVICE = "trap exit TERM; echo up; sleep 600 & wait"

-- Resident bytes; a page that n processes share counts as one nth (proc(5), smaps_rollup).
local function resident(pid)
  local file <close> = assert(io.open(("/proc/%d/smaps_rollup"):format(pid)))
  return tonumber(file:read("a"):match "Pss:%s+(%d+) kB") * 1024
end

-- Starts a program, waits for ready(child), and returns its memory.
local function memory_of(args, opts, ready)
  local child <close> = process.start(args, opts)
  ready(child)
  local bytes = resident(child.pid)
  child:kill(opts and opts.stop or "SIGTERM")
  child:wait()
  return bytes
end

-- Waits until `count` lines end in "up".
local function until_up(count)
  return function(child)
    local up = 0
    for line in child:lines() do
      if line:find "up$" then up = up + 1 end
      if up == count then return end
    end
    error(child.name .. " ended too early")
  end
end

-- Causes events on the engine until the child prints one.
local function wait_for_event(bench)
  return function(child)
    for _ = 1, 200 do
      assert(bench.engine:image_tag(bench.image, { repo = "bench-event", tag = "1" }))
      assert(bench.engine:image_remove "bench-event:1")
      if child.stdout ~= "" then return end
      dockrun.sleep(0.05)
    end
    error(child.name .. " prints no event")
  end
end

local FOLLOW = [[
local engine = assert(require("dockrun").connect())
for event in assert(engine:events()) do print(event.Type, event.Action) io.stdout:flush() end]]

local function followers(bench)
  local ready = wait_for_event(bench)
  local path = bench.endpoint:gsub("^unix://", "")
  return compare("A process that follows the engine's events", "MB", 3, {
    { "floor", "curl", function()
      return memory_of({ "-sSN", "--unix-socket", path, "http://docker/v1.41/events" }, { program = "curl" }, ready)
    end, needs = "curl" },
    { "dockrun", "dockrun, engine:events()", function() return memory_of({ "--endpoint", bench.endpoint, "-e", FOLLOW }, {}, ready) end },
    { "peer", "docker events", function() return memory_of({ "-H", bench.endpoint, "events" }, { program = "docker" }, ready) end },
    { "peer", "python: client.events()", function()
      local code = ("import docker\nfor e in docker.DockerClient(base_url=%q).events(): print(e, flush=True)"):format(bench.endpoint)
      return memory_of({ "-c", code }, { program = "/usr/bin/python3" }, ready)
    end, needs = "python3-docker" },
  })
end

local function watchers(bench, count)
  local path, file = jobs.write(jobs.text {
    name = jobs.unique "bench", image = bench.image, command = SERVICE, group = ("count = %d,"):format(count),
  })
  local _ <close> = file
  local words = { "run", "--endpoint", bench.endpoint, "--state-dir", bench.state_dir, path }
  return compare(("A process that watches %d task%s and shows what they write"):format(count, count == 1 and "" or "s"), "MB", 3, {
    { "dockrun", "dockrun run", function() return memory_of(words, { stop = "SIGINT", timeout = 120 }, until_up(count)) end },
    { "peer", count == 1 and "docker run" or ("docker run, %d processes"):format(count), function()
      local bytes, children = 0, {}
      for i = 1, count do
        children[i] = process.start({ "-H", bench.endpoint, "run", "--rm", bench.image, "sh", "-c", SERVICE }, {
          program = "docker", timeout = 120,
        })
      end
      for _, child in ipairs(children) do until_up(1)(child) end
      for _, child in ipairs(children) do bytes = bytes + resident(child.pid) end
      for _, child in ipairs(children) do child:kill "SIGTERM" end
      for _, child in ipairs(children) do child:wait() end
      return bytes
    end },
    { "peer", "docker-compose up", function()
      local compose, compose_file = peers.compose_file(bench.endpoint, { web = {
        image = bench.image, command = { "sh", "-c", SERVICE }, network_mode = "bridge", scale = count,
      } })
      local _ <close> = compose_file
      local opts = { program = "docker-compose", stop = "SIGINT", timeout = 120 }
      local bytes = memory_of(compose("up"), opts, until_up(count))
      peers.must("docker-compose", compose "down")
      return bytes
    end, needs = "docker-compose" },
  })
end

return function(bench) return { followers(bench), watchers(bench, 1), watchers(bench, 10) } end
