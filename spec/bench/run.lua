-- What dockrun costs, beside a floor (the least that the machine needs for it) and a peer, in one run:
--
--   build/release/dockrun spec/bench/run.lua [NAME…]        start, call, task, ports, validate
--
-- Medians of several rounds, in turn, so that a machine whose speed drifts is unfair to none.
package.path = "./?.lua;" .. package.path
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local output = require "dockrun.cli.output"
local process = require "spec.process"
local uv = require "luv"

local rows = {}

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

-- Times each function `rounds` times in turn. A function returns how many operations it did.
local function compare(title, unit, scale, rounds, contestants)
  local times = {}
  for _ = 1, rounds do
    for i, one in ipairs(contestants) do
      times[i] = times[i] or {}
      local started = dockrun.now()
      local operations = one[2]() or 1
      table.insert(times[i], (dockrun.now() - started) / operations)
    end
  end
  for i, one in ipairs(contestants) do
    rows[#rows + 1] = { i == 1 and title or "", one[1], ("%.3g %s"):format(median(times[i]) * scale, unit) }
  end
end

local function must(result)
  assert(result.code == 0, result.stderr)
end

local benches = {}

function benches.start()
  compare("start and end of a process", "ms", 1e3, 15, {
    { "floor: /bin/true", function() must(process.run({}, { program = "/bin/true" })) end },
    { "dockrun -e ''", function() must(process.run { "-e", "" }) end },
    { "peer: lua5.4 -e ''", function() must(process.run({ "-e", "" }, { program = "lua5.4" })) end },
    { "peer: docker --version", function() must(process.run({ "--version" }, { program = "docker" })) end },
  })
end

-- The least that a call can cost: one write and reads on an open socket, no HTTP library, nothing decoded.
local function raw_calls(socket_path, target, count)
  local pipe, chunks = uv.new_pipe(), dockrun.queue()
  pipe:connect(socket_path, function(err) chunks:push(err or true) end)
  assert(chunks:pop(5) == true)
  pipe:read_start(function(_, data) chunks:push(data or false) end)
  for _ = 1, count do
    pipe:write(("GET %s HTTP/1.1\r\nHost: docker\r\n\r\n"):format(target))
    local answer, length, head = "", nil, nil
    repeat
      answer = answer .. (chunks:pop(5) or error "the engine hung up")
      head = head or answer:find("\r\n\r\n", 1, true)
      length = length or head and tonumber(answer:match "[Cc]ontent%-[Ll]ength: (%d+)")
    until length and #answer >= head + 3 + length or answer:find("\r\n0\r\n\r\n", 1, true)
  end
  pipe:close()
  return count
end

function benches.call()
  local e = engines.shared()
  engines.image(e, "busybox:1")
  local engine = assert(dockrun.connect { endpoint = e.endpoint })
  local id = assert(engine:container_create { body = { Image = "busybox:1", Cmd = { "true" } } }).Id
  local path = e.endpoint:gsub("^unix://", "")
  compare("one container_inspect", "µs", 1e6, 7, {
    { "floor: bytes on a socket", function() return raw_calls(path, "/v1.41/containers/" .. id .. "/json", 300) end },
    { "dockrun, decoded", function()
      for _ = 1, 300 do assert(engine:container_inspect(id)) end
      return 300
    end },
    { "peer: curl, 300 in one process", function()
      must(process.run({ "-sS", "-o", "/dev/null", "--unix-socket", path, ("http://docker/v1.41/containers/%s/json?[1-300]"):format(id) },
        { program = "curl" }))
      return 300
    end },
    { "peer: docker inspect", function()
      must(process.run({ "-H", e.endpoint, "inspect", id }, { program = "docker" }))
    end },
  })
  engine:container_remove(id, { force = true })
end

function benches.task()
  local e = engines.shared()
  engines.image(e, "busybox:1")
  local engine = assert(dockrun.connect { endpoint = e.endpoint })
  local path, file = jobs.write(jobs.text { name = jobs.unique "bench", image = "busybox:1", command = "true" })
  local _ <close> = file
  compare("a task that does nothing, from file to clean-up", "ms", 1e3, 7, {
    { "floor: the engine's own calls", function()
      local id = assert(engine:container_create { body = { Image = "busybox:1", Cmd = { "true" } } }).Id
      assert(engine:container_start(id))
      assert(engine:container_wait(id))
      assert(engine:container_remove(id))
    end },
    { "dockrun run", function()
      must(process.run { "run", "--endpoint", e.endpoint, "--state-dir", jobs.state_dir, path })
    end },
    { "peer: docker run --rm", function()
      must(process.run({ "-H", e.endpoint, "run", "--rm", "busybox:1", "true" }, { program = "docker" }))
    end },
  })
end

function benches.ports()
  local contestants = { { "floor: the kernel's probe alone", function()
    for port = 40001, 40200 do dockrun.ports.probe("127.0.0.1", port) end
    return 200
  end } }
  for i, fill in ipairs { 0, 50, 99 } do
    local from = 20000 + i * 1000  -- ranges apart: what one allocator holds, the other cannot have
    local allocator = dockrun.ports.new { from = from, to = from + 999, seed = 1 }
    for _ = 1, fill * 10 do assert(allocator:allocate("127.0.0.1", "bench")) end
    contestants[#contestants + 1] = { ("allocate and release, %d %% of the range held"):format(fill), function()
      for _ = 1, 200 do allocator:release("127.0.0.1", assert(allocator:allocate("127.0.0.1", "bench"))) end
      return 200
    end }
  end
  compare("one port", "µs", 1e6, 7, contestants)
end

local function big_job(count)
  local tasks = {}
  for i = 1, count do
    tasks["t" .. i] = {
      config = { image = "redis:7", command = "redis-server", args = { "--save", "" } }, env = { LEVEL = "info" },
      resources = { cpu = 500, memory = 256, network = { mbits = 10, dynamic_ports = { "p" .. i } } },
    }
  end
  return dockrun.json.encode { job = { big = { group = { all = { task = tasks } } } } }
end

-- The same as services: an image, a command, an environment, limits and a port each.
local function big_compose(count)
  local services = {}
  for i = 1, count do
    services["t" .. i] = {
      image = "redis:7", command = { "redis-server", "--save", "" }, environment = { LEVEL = "info" }, cpu_shares = 500,
      mem_limit = "256m", ports = { ("%d:6379"):format(20000 + i) },
    }
  end
  return dockrun.json.encode { version = "2.4", services = services }
end

function benches.validate()
  for _, count in ipairs { 1000, 10000 } do
    local text = big_job(count)
    local path, file = jobs.write(text, ".json")
    local composed, other = jobs.write(big_compose(count), ".json")
    local _ <close> = file
    local _ <close> = other
    local contestants = {
      { "floor: its JSON decoded", function() assert(dockrun.json.decode(text)) end },
      { "dockrun validate", function() must(process.run { "validate", path }) end },
    }
    if uv.fs_stat "/usr/bin/docker-compose" and count <= 1000 then
      table.insert(contestants, { "peer: docker-compose config -q", function()
        must(process.run({ "-f", composed, "config", "-q" }, { program = "docker-compose", timeout = 300 }))
      end })
    end
    compare(("a job of %d tasks, read and checked"):format(count), "ms", 1e3, 5, contestants)
  end
end

for _, name in ipairs(#arg > 0 and arg or { "start", "call", "task", "ports", "validate" }) do
  assert(benches[name], "no benchmark is called " .. name)()
end
output.columns({ "WHAT", "WHO", "MEDIAN" }, rows)
engines.stop_all()
