#!/usr/bin/env dockrun
-- Waits until a port answers: connects, or, with --http PATH, gets a status below 400 from it.
--
--   dockrun scripts/wait-port.lua [--timeout S] [--http PATH] HOST:PORT
local argparse = require "argparse"
local dockrun = require "dockrun"
local uv = require "luv"

local parser = argparse("wait-port.lua", "Waits until a port answers.")
parser:argument("target", "HOST:PORT.")
parser:option("--timeout", "Seconds to wait in all.", "30"):convert(tonumber)
parser:option("--http", "Ask for this path and want a status below 400."):argname "PATH"
local args = parser:parse()

local host, port = args.target:match "^%[?([^%]]+)%]?:(%d+)$"
if not host then parser:error(("'%s' is not HOST:PORT"):format(args.target)) end

local function connect()
  local addresses, why = uv.getaddrinfo(host, port, { socktype = "stream" })
  if not addresses then return nil, why end
  local socket, done = uv.new_tcp(), dockrun.queue()
  socket:connect(addresses[1].addr, tonumber(port), function(err) done:push(err or true) end)
  local answer = done:pop(1)
  socket:close()
  if answer == true then return true end
  return nil, answer or "no answer"
end

local function get()
  local answer, err = dockrun.http.request { url = ("http://%s%s"):format(args.target, args.http), timeout = 2 }
  if answer and answer.status < 400 then return true end
  return nil, answer and ("status %d"):format(answer.status) or tostring(err)
end

local started = dockrun.now()
local probe = args.http and get or connect
local ok, why
repeat
  ok, why = probe()
  if ok then
    print(("%s answers after %.1f s"):format(args.target, dockrun.now() - started))
    os.exit(0, true)
  end
  dockrun.sleep(0.1)
until dockrun.now() - started > args.timeout
io.stderr:write(("%s does not answer after %g s: %s\n"):format(args.target, args.timeout, why))
os.exit(1, true)
