-- One call of the Engine API: sequentially and in parallel.
local compare = require("spec.bench.compare").compare
local dockrun = require "dockrun"
local peers = require "spec.bench.peers"
local uv = require "luv"

local CALLS, AT_A_TIME = 300, 16

-- The minimum cost of a call: a write and reads on an open socket, no HTTP library, nothing decoded.
local function raw_calls(path, target, count)
  local pipe, chunks = uv.new_pipe(), dockrun.queue()
  pipe:connect(path, function(err) chunks:push(err or true) end)
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
end

-- Fibers that share the calls.
local function in_parallel(fn)
  local tasks = {}
  for i = 1, AT_A_TIME do tasks[i] = function() fn(CALLS // AT_A_TIME) end end
  dockrun.all(tasks)
  return CALLS // AT_A_TIME * AT_A_TIME
end

return function(bench)
  local engine = bench.engine
  local id = assert(engine:container_create { body = { Image = bench.image, Cmd = { "true" } } }).Id
  local _ <close> = setmetatable({}, { __close = function() engine:container_remove(id, { force = true }) end })
  local path, target = bench.endpoint:gsub("^unix://", ""), "/v1.41/containers/" .. id .. "/json"
  local function inspect(count)
    for _ = 1, count do assert(engine:container_inspect(id)) end
  end
  local function curl(...)
    peers.must("curl", { "-sS", "-o", "/dev/null", "--unix-socket", path, ("http://docker%s?[1-%d]"):format(target, CALLS), ... })
    return CALLS
  end
  return {
    compare("One container_inspect, one after the other", "µs", 7, {
      { "floor", "bytes on an open socket", function()
        raw_calls(path, target, CALLS)
        return CALLS
      end },
      { "dockrun", "engine:container_inspect(id)", function()
        inspect(CALLS)
        return CALLS
      end },
      { "peer", "python: client.api.inspect_container(id)", function()
        return CALLS, peers.python(bench.endpoint, ([[
client.api.inspect_container(%q)
start = time.perf_counter()
for _ in range(%d): client.api.inspect_container(%q)
print(time.perf_counter() - start)]]):format(id, CALLS, id))
      end, needs = "python3-docker" },
      { "peer", "curl, all in one process", curl, needs = "curl" },
      { "peer", "docker inspect, a process each", function() peers.docker(bench.endpoint, { "inspect", id }) end },
    }),
    compare(("One container_inspect, %d at a time"):format(AT_A_TIME), "µs", 7, {
      { "floor", "bytes on open sockets", function()
        return in_parallel(function(count) raw_calls(path, target, count) end)
      end },
      { "dockrun", "engine:container_inspect(id)", function() return in_parallel(inspect) end },
      { "peer", "curl --parallel, all in one process", function()
        return curl("--parallel", "--parallel-max", tostring(AT_A_TIME))
      end, needs = "curl" },
    }),
  }
end
