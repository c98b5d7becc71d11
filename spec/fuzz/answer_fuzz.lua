-- The other half of answer_fuzz.c: an engine that sends the given bytes, and the calls that must survive them.
local docker = require "dockrun.core.docker"
local uv = require "luv"

local path = os.tmpname()
os.remove(path)

local VERSION = '{"ApiVersion":"1.43"}'
local answer, cut = ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#VERSION, VERSION), 1

local server = uv.new_pipe()
assert(server:bind(path))
assert(server:listen(16, function()
  local client = uv.new_pipe()
  server:accept(client)
  client:read_start(function(_, data)
    client:read_stop()
    if not data then
      client:close()
      return
    end
    client:write(answer:sub(1, cut))
    client:write(answer:sub(cut + 1), function() client:close() end)
  end)
end))
server:unref()

local engine = assert(docker.connect { endpoint = "unix://" .. path, timeout = 5 })
assert(engine:version())

local function drain(stream)
  if not stream then return end
  stream:headers()
  for _ = 1, 1000 do
    if stream:read(5) == nil then break end
  end
  stream:close()
end

local calls = {
  function() engine:container_inspect "a" end,
  function() engine:container_list() end,
  function() engine:container_start "a" end,
  function() engine:archive_head("a", { path = "/" }) end,
  function() drain((engine:archive_get("a", { path = "/" }))) end,
  function() drain((engine:events())) end,
  function() drain((engine:container_logs("a", { stdout = true }))) end,
  function() drain((engine:container_logs("a", { stdout = true, tty = true }))) end,
  function() drain((engine:exec_start("a", { body = { Detach = false } }))) end,
  function() drain((engine:image_load { body = "x" })) end,
}

return function(data)
  local call, at = data:byte(1, 2)
  answer = data:sub(3)
  cut = at * #answer // 255
  calls[call % #calls + 1]()
end
