-- A little of everything that the core does, so that memory can run out in it: see oom_spec.lua. It does not catch errors.
local dockrun, uv = require "dockrun", require "luv"
local docker = require "dockrun.core.docker"
local sqlite = require "dockrun.core.sqlite"

assert(dockrun.json.encode(dockrun.json.decode '{"a":[1,2,{"b":null}],"c":"x"}'))
dockrun.frames.decoder("frames"):feed "\1\0\0\0\0\0\0\2hi"

local queue = dockrun.queue()
local task = dockrun.spawn(function()
  dockrun.sleep(0.001)
  queue:push(1)
  return 5
end)
queue:pop(5)
task:await()
dockrun.all { function() dockrun.sleep(0.001) end, function() return 1 end }

local db = assert(sqlite.open ":memory:")
db:exec "CREATE TABLE t (a); INSERT INTO t VALUES (1)"
db:rows "SELECT * FROM t"
db:close()

-- An engine that gives the same answer to every request.
local path = os.tmpname()
os.remove(path)
local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
local server = uv.new_pipe()
server:bind(path)
server:listen(8, function()
  local client = uv.new_pipe()
  server:accept(client)
  client:read_start(function(_, data)
    if not data then
      if not client:is_closing() then client:close() end
      return
    end
    local body = '{"ApiVersion":"1.41","Version":"x"}\n'
    client:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
  end)
end)

local function read(stream)
  if not stream then return end
  stream:read(1)
  stream:headers()
  stream:close()
end

local engine = assert(docker.connect { endpoint = "unix://" .. path, timeout = 1 })
engine:version()
read((engine:events { timeout = 1 }))
read((engine:exec_start("x", { body = { Detach = false }, timeout = 1 })))
local pieces = { "abc", "def" }
engine:image_load { body = function() return table.remove(pieces) end, timeout = 1 }
dockrun.http.request { url = "http://x/", unix_socket = path, headers = { a = "b" }, body = "x", timeout = 1 }

local timer = uv.new_timer()
timer:start(1, 0, function() queue:push(2) end)
queue:pop(1)
timer:close()
dockrun.ports.new({ from = 40000, to = 40010 }):allocate("127.0.0.1", "spec")
server:close()
