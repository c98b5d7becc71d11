-- A job with one task: the time until its container runs, and from its file to its clean-up.
local compare = require("spec.bench.compare").compare
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local peers = require "spec.bench.peers"
local process = require "spec.process"

-- A name for a container, so that later calls can use it.
local function body(bench, command) return dockrun.json.encode { Image = bench.image, Cmd = command } end

local function started(bench)
  local command = { "sleep", "600" }
  local path, file = jobs.write(jobs.text { name = jobs.unique "bench", image = bench.image, command = "trap exit TERM; sleep 600 & wait" })
  local _ <close> = file
  local compose, compose_file = peers.compose_file(bench.endpoint, {
    web = { image = bench.image, command = command, network_mode = "bridge" },
  })
  local _ <close> = compose_file
  -- Seconds that begin() takes; its return value is a function that removes the container.
  local function timed(begin)
    return function()
      local at = dockrun.now()
      local finish = begin()
      local seconds = dockrun.now() - at
      finish()
      return 1, seconds
    end
  end
  return compare("From nothing to a running container", "ms", 7, {
    { "floor", "curl: create, start", timed(function()
      local name = jobs.unique "floor"
      peers.curl(bench.endpoint, {
        { "POST", "/containers/create?name=" .. name, body(bench, command) }, { "POST", "/containers/" .. name .. "/start" },
      })
      return function() assert(bench.engine:container_remove(name, { force = true })) end
    end), needs = "curl" },
    { "dockrun", "dockrun run, until 'started'", timed(function()
      local child = process.start { "run", "--json", "--endpoint", bench.endpoint, "--state-dir", bench.state_dir, path }
      child:wait_for '"event":"started"'
      return function()
        child:kill "SIGINT"
        child:wait()
      end
    end) },
    { "dockrun", "dockrun run -d", timed(function()
      local job = jobs.unique "bench"
      local own, own_file = jobs.write(jobs.text { name = job, image = bench.image, command = "trap exit TERM; sleep 600 & wait" })
      local _ <close> = own_file
      peers.dockrun { "run", "-d", "--json", "--endpoint", bench.endpoint, "--state-dir", bench.state_dir, own }
      return function() peers.dockrun { "stop", "--purge", "--endpoint", bench.endpoint, "--state-dir", bench.state_dir, job } end
    end) },
    { "peer", "docker run -d", timed(function()
      local name = jobs.unique "peer"
      peers.docker(bench.endpoint, { "run", "-d", "--name", name, bench.image, table.unpack(command) })
      return function() assert(bench.engine:container_remove(name, { force = true })) end
    end) },
    { "peer", "python: client.containers.run(detach=True)", timed(function()
      local name = jobs.unique "peer"
      peers.python(bench.endpoint, ("client.containers.run(%q, ['sleep', '600'], detach=True, name=%q)"):format(bench.image, name))
      return function() assert(bench.engine:container_remove(name, { force = true })) end
    end), needs = "python3-docker" },
    { "peer", "docker-compose up -d", timed(function()
      peers.must("docker-compose", compose("up", "-d"))
      return function() peers.must("docker-compose", compose("down", "-t", "0")) end
    end), needs = "docker-compose" },
  })
end

local function whole(bench)
  local path, file = jobs.write(jobs.text { name = jobs.unique "bench", image = bench.image, command = "true" })
  local _ <close> = file
  return compare("A task that ends at once, from its file to its clean-up", "ms", 7, {
    { "floor", "curl: create, start, wait, remove", function()
      local at = "/containers/" .. jobs.unique "floor"
      peers.curl(bench.endpoint, {
        { "POST", at:gsub("^/containers/", "/containers/create?name="), body(bench, { "true" }) }, { "POST", at .. "/start" },
        { "POST", at .. "/wait" }, { "DELETE", at },
      })
    end, needs = "curl" },
    { "dockrun", "dockrun run", function()
      peers.dockrun { "run", "--json", "--endpoint", bench.endpoint, "--state-dir", bench.state_dir, path }
    end },
    { "peer", "docker run --rm", function() peers.docker(bench.endpoint, { "run", "--rm", bench.image, "true" }) end },
    { "peer", "python: client.containers.run(remove=True)", function()
      peers.python(bench.endpoint, ("client.containers.run(%q, ['true'], remove=True)"):format(bench.image))
    end, needs = "python3-docker" },
  })
end

return function(bench) return { started(bench), whole(bench) } end
