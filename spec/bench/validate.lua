-- A large job, read and checked.
local compare = require("spec.bench.compare").compare
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local peers = require "spec.bench.peers"

-- The same job in each format.
local big_job = {}

function big_job.json(count)
  local tasks = {}
  for i = 1, count do
    tasks["t" .. i] = {
      config = { image = "redis:7", command = "redis-server", args = { "--save", "" } }, env = { LEVEL = "info" },
      resources = { cpu = 500, memory = 256, network = { mbits = 10, dynamic_ports = { "p" .. i } } },
    }
  end
  return dockrun.json.encode { job = { big = { group = { all = { task = tasks } } } } }
end

function big_job.nomad(count)
  local parts = { 'job "big" {\n  group "all" {' }
  for i = 1, count do
    parts[#parts + 1] = ([[
    task "t%d" {
      config {
        image   = "redis:7"
        command = "redis-server"
        args    = ["--save", ""]
      }
      env {
        LEVEL = "info"
      }
      resources {
        cpu    = 500
        memory = 256
        network {
          mbits         = 10
          dynamic_ports = ["p%d"]
        }
      }
    }]]):format(i, i)
  end
  parts[#parts + 1] = "  }\n}"
  return table.concat(parts, "\n")
end

function big_job.lua(count)
  return ([[
local tasks = {}
for i = 1, %d do
  tasks[i] = task("t" .. i) {
    config = { image = "redis:7", command = "redis-server", args = { "--save", "" } }, env = { LEVEL = "info" },
    resources = { cpu = 500, memory = 256, network = { mbits = 10, dynamic_ports = { "p" .. i } } },
  }
end
return job "big" { group "all" (tasks) }]]):format(count)
end

-- The same as services: an image, a command, an environment, limits and a port each.
local function big_services(count)
  local services = {}
  for i = 1, count do
    services["t" .. i] = {
      image = "redis:7", command = { "redis-server", "--save", "" }, environment = { LEVEL = "info" }, cpu_shares = 500,
      mem_limit = "256m", ports = { ("%d:6379"):format(20000 + i) },
    }
  end
  return services
end

local function reading(bench, count, with_compose)
  local text = big_job.json(count)
  local files <close> = setmetatable({}, { __close = function(all) for _, path in ipairs(all) do os.remove(path) end end })
  for i, format in ipairs { "json", "nomad", "lua" } do files[i] = jobs.write(big_job[format](count), "." .. format) end
  local compose, compose_file = peers.compose_file(bench.endpoint, big_services(count))
  local _ <close> = compose_file
  local contestants = {
    { "floor", "its JSON decoded, in a process that runs", function() assert(dockrun.json.decode(text)) end },
    { "dockrun", "dockrun validate job.json", function() peers.dockrun { "validate", files[1] } end },
    { "dockrun", "dockrun validate job.nomad", function() peers.dockrun { "validate", files[2] } end },
    { "dockrun", "dockrun validate job.lua", function() peers.dockrun { "validate", files[3] } end },
  }
  if with_compose then
    contestants[5] = { "peer", "docker-compose config -q", function() peers.must("docker-compose", compose("config", "-q")) end,
      needs = "docker-compose" }
  end
  return compare(("A job of %d tasks, read and checked"):format(count), "ms", 3, contestants)
end

return function(bench) return { reading(bench, 1000, true), reading(bench, 10000, false) } end
