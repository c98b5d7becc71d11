--- Engines behind SSH: OpenSSH forwards a unix socket of this host to the engine's on the other host. Hosts, keys and agents
--- are configured for OpenSSH, not here.
local http = require "dockrun.core.http"
local process = require "dockrun.driver.process"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local SOCKET = "/var/run/docker.sock" -- on the other host, if the endpoint names none
local PATIENCE = 30                   -- seconds until the tunnel must be open
local PAUSE = 0.02                    -- seconds between two checks
local RESPAWN = 1000                  -- milliseconds, before a broken tunnel is opened again
local LAST_WORDS = 1000               -- bytes of ssh's diagnostics that are kept

-- Runs ssh as long as its own input is open: until this process ends, in whatever way. Then it removes the directory too.
local KEEPER = [[
directory=$1
shift
exec 3<&0
"$@" 3<&- &
ssh=$!
{ read -r _ <&3; rm -rf "$directory"; kill $ssh; } 2>/dev/null &
watcher=$!
wait $ssh
code=$?
kill $watcher 2>/dev/null
exit $code]]

---@class SshLink
---@field endpoint string
---@field directory string
---@field path string      the socket on this host
---@field remote string    the socket there
---@field command string[]
---@field said string      ssh's last diagnostics
---@field input? integer   the descriptor that keeps ssh running while it is open
---@field ended? boolean   ssh has ended
---@field code? integer    ssh's exit code, if known
---@field opened? boolean  the engine answered once
---@field closed? boolean  it ends, or has ended

local function invalid(endpoint, why)
  return nil, runtime.error("invalid", ("the endpoint '%s' is not ssh://[user@]host[:port][/path/of/socket]: %s"):format(endpoint, why))
end

-- The command for an endpoint, and the socket there. ssh uses the first value of an option, so the operator's come first.
local function arguments(endpoint, command, path)
  local authority, remote = endpoint:match "^ssh://([^/]*)(.*)$"
  local user, address = authority:match "^(.*)@(.*)$"
  address = address or authority
  local host, port = address:match "^%[(.+)%]:?(%d*)$"
  if not host then host, port = address:match "^([^:]+):?(%d*)$" end
  if not host then return invalid(endpoint, "it names no host") end
  if user and user:find ":" then return invalid(endpoint, "a password has no place in it; use a key") end
  if remote == "" or remote == "/" then remote = SOCKET end
  local words = table.move(command, 1, #command, 1, {})
  local function add(...) table.move({ ... }, 1, select("#", ...), #words + 1, words) end
  add("-nNT", "-S", "none", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes",
    "-o", "ServerAliveInterval=15", "-L", path .. ":" .. remote)
  if user then add("-l", user) end
  if port ~= "" then add("-p", port) end
  add("--", host)
  return words, remote
end

local function remove(link)
  uv.fs_unlink(link.path)
  uv.fs_rmdir(link.directory)
end

local function close(link)
  if link.input then uv.fs_close(link.input) end
  if link.ended then remove(link) end
  link.input, link.closed = nil, true
end

-- By command and endpoint: all engines of a process share one tunnel to a host, and it ends with the process's runtime.
local links = {} ---@type table<string, SshLink>

local start

-- Opens a broken tunnel again. Until then the engine's calls fail.
local function start_later(link)
  local timer = uv.new_timer()
  timer:start(RESPAWN, 0, function()
    timer:close()
    if not link.closed then start(link) end
  end)
  timer:unref()
end

local function ended(link, code)
  if link.input then uv.fs_close(link.input) end
  link.input, link.ended, link.code = nil, true, code
  if link.closed then
    remove(link)
  elseif link.opened then
    start_later(link)
  end
end

-- Starts ssh in a session of its own, so that a Ctrl-C does not close the tunnel before the job is stopped.
function start(link)
  link.ended, link.code, link.said = nil, nil, ""
  local input, why = uv.pipe()
  local output, shell
  if input then
    link.input = input.write
    output, why = uv.pipe()
  end
  if output then
    local command = { "sh", "-c", KEEPER, "sh", link.directory, table.unpack(link.command) }
    shell, why = process.start(command, { stdin = input.read, stderr = output.write, session = true },
      function(code) ended(link, code) end)
    uv.fs_close(output.write)
  end
  if input then uv.fs_close(input.read) end
  if not shell then
    if output then uv.fs_close(output.read) end
    link.said = tostring(why)
    return ended(link, 127)
  end
  local words = uv.new_pipe()
  words:open(output.read)
  words:read_start(function(_, data)
    if data then link.said = (link.said .. data):sub(-LAST_WORDS) else words:close() end
  end)
  shell:unref()
  words:unref()
end

local function unreachable(link, prefix, why)
  local said = link.said:gsub("%s+$", "")
  return nil, runtime.error("unreachable", ("cannot reach the Docker engine at %s: %s%s"):format(link.endpoint, prefix,
    said ~= "" and said or why))
end

-- Waits for a condition, for a time.
local function wait(seconds, reached)
  local deadline = runtime.now() + seconds
  while not reached() and runtime.now() < deadline do runtime.sleep(PAUSE) end
end

-- Waits until the engine answers at the other end.
local function await(link)
  local answer, err
  wait(PATIENCE, function()
    if link.ended or not uv.fs_stat(link.path) then return link.ended end
    answer, err = http.request { url = "http://docker/_ping", unix_socket = link.path, timeout = PATIENCE }
    return answer or not tostring(err):find "Connection refused"  -- bound, but not listening yet
  end)
  if answer then
    link.opened = true
    return true
  end
  wait(1, function() return link.said ~= "" end)  -- ssh writes the reason shortly after it closes the connection
  if link.ended then return unreachable(link, "", "ssh ended with exit code " .. (link.code or "unknown")) end
  if err then return unreachable(link, ("nothing answers at %s there: "):format(link.remote), tostring(err)) end
  return unreachable(link, ("ssh did not connect within %d s: "):format(PATIENCE), "it gave no reason")
end

--- A unix socket of this host that leads to an engine as long as this process runs.
---@param endpoint string   ssh://[user@]host[:port][/path/of/socket]
---@param command string[]  ssh, with the operator's options
---@return string? path
---@return table? err  kind "invalid", "unreachable" with ssh's own words
function M.socket(endpoint, command)
  local key = endpoint .. "\n" .. table.concat(command, "\0")
  local link, err = links[key], nil
  if not link then
    local directory, why = uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-ssh-XXXXXX")
    if not directory then return nil, runtime.error("system", ("cannot make a directory for a socket: %s"):format(why)) end
    link = { endpoint = endpoint, directory = directory, path = directory .. "/docker.sock", said = "" }
    link.command, link.remote = arguments(endpoint, command, link.path)
    if not link.command then
      remove(link)
      return nil, link.remote
    end
    links[key] = setmetatable(link, { __gc = close })
    start(link)
  end
  local ok = link.opened
  if not ok then ok, err = await(link) end
  if ok then return link.path end
  if links[key] == link then
    links[key] = nil
    close(link)
  end
  return nil, err
end

return M
