--- The job lock: makes sure that one process watches a job. The lock is a socket in the state directory. Other processes send
--- requests to it: to stop the job, or to the agent's to take a job over. The socket of a process that has died is replaced;
--- one of a process that does not respond is an error that names the process. A replacement of this file has the functions
--- `hold`, `ask` and `reason`, and the name `agent`.
local channel = require "dockrun.agent.channel"
local directory = require "dockrun.store.directory"
local hash = require("dockrun.driver.labels").hash
local peers = require "dockrun.core.peer"
local process = require "dockrun.store.owner"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local LONGEST = 107  -- bytes of a socket's path: sockaddr_un, unix(7)
local PRIVATE, GROUP = tonumber("600", 8), tonumber("660", 8)

-- The same path for the same job on the same engine. Hashed, because a socket's path must be short.
local function path_of(state_dir, endpoint, job) return ("%s/jobs/%s"):format(state_dir, hash(endpoint .. "\n" .. job)) end

-- The group whose members may send requests as well; nil if there is none.
local function group_of(options)
  local name = options.socket_group
  if name == "" then return nil end
  return peers.group(name)
end

-- Whether a peer may send requests: root, this user and the members of the group.
local function gate(agent, gid)
  return function(peer)
    local may = peer.uid == 0 or peer.uid == uv.getuid() or gid ~= nil and peer.gid == gid
    for _, group in ipairs(peer.groups) do may = may or group == gid end
    if not may then
      agent:warn(("refused a request of user %d (process %d): only root, this user and the members of socket_group may ask"):format(
        peer.uid, peer.pid))
    end
    return may
  end
end

-- Lets only this user connect, or the group as well; independent of the umask.
local function restrict(path, gid)
  local ok, why = uv.fs_chmod(path, gid and GROUP or PRIVATE)
  if ok and gid then ok, why = uv.fs_chown(path, -1, gid) end
  return ok, why
end

-- Compares both, because a new file of that name may have got the same inode.
local function is_same(a, b)
  return a and b and a.ino == b.ino and a.ctime.sec == b.ctime.sec and a.ctime.nsec == b.ctime.nsec
end

-- Listens at the path, and replaces the stale socket if that is still there. In a transaction, so that one process at a time
-- does this: otherwise two could find the same stale socket, and the second would remove the first's new one.
---@return table? pipe
---@return table? err
---@return table? other  uv.fs_stat of the socket that is in the way
local function listen(agent, path, stale, gid, clients)
  local pipe, other = uv.new_pipe(), nil
  local ok, why, code
  local done, err = agent.state:transaction(function()
    if stale and is_same(uv.fs_stat(path), stale) then uv.fs_unlink(path) end
    ok, why, code = pipe:bind(path)
    if ok then ok, why, code = restrict(path, gid) end
    if ok then ok, why, code = pipe:listen(128, function()
      local client = uv.new_pipe()
      if pipe:accept(client) then clients:push(client) else client:close() end
    end) end
    if code == "EADDRINUSE" then other = uv.fs_stat(path) end
  end)
  if done and ok then return pipe end
  pipe:close()
  if not done then return nil, err end
  if code == "EADDRINUSE" then return nil, nil, other end
  return nil, runtime.error("system", ("cannot listen on %s: %s"):format(path, why))
end

local function named(peer) return peer and peer.pid > 0 and ("process %d"):format(peer.pid) or "a process" end

local function foreign(path, peer)
  return runtime.error("system", ("refusing %s: process %d of user %d listens on it; end that process, or name another --state-dir"):format(
    path, peer.pid, peer.uid))
end

---@class JobLock
local JobLock = {}
JobLock.__index = JobLock

--- Takes the lock of a job.
---@param agent Agent
---@param job string
---@param on_request fun(request: table): table?  answers a request of another process; may wait
---@return JobLock? lock  held until it is closed
---@return table? err    kind "taken": another process watches the job; "system"; "invalid"; those of the state
function M.hold(agent, job, on_request)
  local state_dir = agent.options.state_dir
  local path = path_of(state_dir, agent.engine:endpoint(), job)
  if #path > LONGEST then
    return nil, runtime.error("system", ("the path of the state directory is too long for a socket: %s"):format(state_dir))
  end
  local gid, err = group_of(agent.options)
  if err then return nil, runtime.error("invalid", ("option 'socket_group': %s"):format(err)) end
  local made
  made, err = directory.sockets(state_dir, gid)
  if not made then return nil, err end
  local clients = queue.new()
  local pipe, other
  repeat
    pipe, err, other = listen(agent, path, other, gid, clients)
    if err then return nil, err end
    local status, peer
    if other then status, peer = channel.listener(path) end
    if status == "foreign" then return nil, foreign(path, peer) end
    if status == "there" then
      return nil, runtime.error("taken", ("job '%s' is run by another dockrun (%s); `dockrun stop %s` ends it"):format(job,
        named(peer), job))
    end
  until pipe
  pipe:unref()
  -- A fiber of the caller's and not a callback of the pipe: it ends together with the fiber that holds the lock.
  local serve = channel.server(gate(agent, gid), on_request)
  local server = runtime.spawn_free(function()
    while true do runtime.spawn(serve, clients:pop()) end
  end)
  return setmetatable({ pipe = pipe, path = path, server = server }, JobLock)
end

--- Releases the lock. Idempotent.
function JobLock:close()
  if not self.pipe then return end
  self.pipe:close()  -- and libuv unlinks the socket
  self.server:cancel()
  self.pipe = nil
end

JobLock.__close = JobLock.close

--- The name of the lock of `dockrun agent`: no job has this name.
M.agent = ""

--- The reason for a stop that another process gives.
---@param request table
---@return string
function M.reason(request)
  local reason = request.reason
  return type(reason) == "string" and #reason <= 1000 and reason or "another process asked for it"
end

local complaints = {}

function complaints.hung(whose, peer, opts)
  local pid = peer and peer.pid > 0 and peer.pid
  local text = ("%s (%s) has not responded for %g s"):format(whose, named(peer), opts.patience)
  if not pid then return text .. "; end it, and try again" end
  if process.is_stopped(pid) then text = ("%s: a signal has stopped it; `kill -CONT %d` continues it"):format(text, pid) end
  return ("%s; `kill -KILL %d` ends it, and the next command takes over"):format(text, pid)
end

function complaints.timeout(whose, peer, opts)
  return ("%s (%s) did not finish within %g s and is still working"):format(whose, named(peer), opts.timeout or opts.patience)
end

function complaints.broken(whose, peer)
  return ("%s (%s) gave an invalid answer; is it another version of dockrun?"):format(whose, named(peer))
end

--- Sends a request to the process that watches a job, and waits for its answer.
---@param agent Agent
---@param job string
---@param request table
---@param timeout? number  seconds that it may take; nil: as long as it responds
---@return table? answer  nil if no process watches it, or it ended meanwhile
---@return table? err     of the other process; kind "hung" if it does not respond, "failed" if it takes too long, "system"
function M.ask(agent, job, request, timeout)
  local path = path_of(agent.options.state_dir, agent.engine:endpoint(), job)
  if #path > LONGEST or not uv.fs_stat(path) then return nil end
  local patience = agent.options.answer_timeout
  local answer, why, peer = channel.ask(path, request, patience, timeout)
  if answer or why == "none" or why == "ended" then return answer end
  if why == "foreign" then return nil, foreign(path, peer) end
  if type(why) == "table" then return nil, why end
  local whose = job == M.agent and "the agent" or ("the process that watches job '%s'"):format(job)
  local message = complaints[why](whose, peer, { patience = patience, timeout = timeout })
  return nil, runtime.error(why == "hung" and "hung" or "failed", message)
end

return M
