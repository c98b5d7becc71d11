#!/usr/bin/env dockrun
-- Waits until a port accepts a connection or, with --http PATH, answers with a status below 400. The engine's proxy accepts
-- connections before the program in the container listens: use --http for such a port.
--
--   dockrun scripts/wait-port.lua [--timeout TIME] [--http PATH] HOST:PORT
--
-- Exit: 0 it answers, 1 it does not, 2 wrong arguments.
local dockrun = require "dockrun"
local uv = require "luv"

local parser = dockrun.arguments.parser("wait-port.lua", "Waits until a port answers.")
parser:argument("target", "HOST:PORT.")
parser:option("--timeout", "How long to wait in all.", "30"):convert(dockrun.duration.parse)
parser:option("--http", "Request this path, and expect a status below 400."):argname "PATH"
local args = parser:parse()

local host, port = args.target:match "^%[?([^%]]+)%]?:(%d+)$"
port = math.tointeger(tonumber(port))
if not port or port < 1 or port > 65535 then
  parser:error(("expected HOST:PORT with a port from 1 to 65535, got '%s'"):format(args.target))
end

-- Each has a time-out in seconds, and returns true, or nil and why not.

local function connect_to(address, timeout)
  local socket, done = uv.new_tcp(), dockrun.queue()
  socket:connect(address.addr, port, function(err) done:push(err or true) end)
  local answer = done:pop(timeout)
  socket:close()
  if answer == true then return true end
  return nil, answer or "no answer"
end

-- A name may have several addresses, and one of them a listener: localhost is ::1 and 127.0.0.1.
local function connect(timeout)
  local found = dockrun.queue()
  uv.getaddrinfo(host, nil, { socktype = "stream" }, function(err, addresses) found:push(err or addresses) end)
  local addresses = found:pop(timeout) or "the name's look-up does not end"
  if type(addresses) == "string" then return nil, addresses end
  local why
  for _, address in ipairs(addresses) do
    local ok
    ok, why = connect_to(address, timeout)
    if ok then return true end
  end
  return nil, why
end

local function get(timeout)
  local url = ("http://%s:%d/%s"):format(host:find ":" and "[" .. host .. "]" or host, port, (args.http:gsub("^/", "")))
  local answer, err = dockrun.http.request { url = url, timeout = timeout }
  if answer and answer.status < 400 then return true end
  return nil, answer and ("status %d"):format(answer.status) or tostring(err)
end

local started = dockrun.now()
local probe = args.http and get or connect
local ok, why
repeat
  local left = args.timeout - (dockrun.now() - started)
  ok, why = probe(math.max(0.1, math.min(left, 2)))
  if not ok then dockrun.sleep(0.1) end
until ok or dockrun.now() - started > args.timeout
if not ok then
  io.stderr:write(("%s does not answer after %g s: %s\n"):format(args.target, args.timeout, why))
  os.exit(1, true)
end
print(("%s answers after %.1f s"):format(args.target, dockrun.now() - started))
