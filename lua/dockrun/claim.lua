--- One process watches a job. It holds the job by a socket in the state directory, which is also where others ask it for
--- something: to stop the job, or, of the agent, to take one over. A socket whose process has died answers nobody and is
--- taken over.
local json = require "dockrun.core.json"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local LONGEST = 107  -- bytes of a socket's path: sockaddr_un, unix(7)

-- The same job on the same engine, in few bytes: FNV-1a, 64 bits.
local function path_of(state_dir, endpoint, job)
  local hash = 0xcbf29ce484222325
  for byte in (endpoint .. "\n" .. job):gmatch "." do hash = (hash ~ byte:byte()) * 0x100000001b3 end
  return ("%s/jobs/%016x"):format(state_dir, hash)
end

local function connect(path)
  local pipe, answer = uv.new_pipe(), queue.new()
  pipe:connect(path, function(why) answer:push(why or true) end)
  if answer:pop(5) == true then return pipe end
  pipe:close()
  return nil
end

-- The next line, or nil where the other side has gone.
local function read_line(pipe)
  local pieces, text = queue.new(), ""
  pipe:read_start(function(_, data) pieces:push(data or false) end)
  while not text:find "\n" do
    local piece = pieces:pop()
    if not piece then return nil end
    text = text .. piece
  end
  pipe:read_stop()
  return text:match "^[^\n]*"
end

-- mkdir -p of what holds the path. nil, why, and of which directory.
local function make_directory(path)
  local directory = ""
  for part in path:match "^(.*)/[^/]+$":gmatch "/*[^/]+" do
    directory = directory .. part
    local ok, why, code = uv.fs_mkdir(directory, tonumber("711", 8))
    if not ok and code ~= "EEXIST" then return nil, why end
  end
  return true
end

---@class Claim
local Claim = {}
Claim.__index = Claim

local function serve(client, on_request)
  local request = json.decode(read_line(client) or "")
  if type(request) == "table" then
    local ok, answer = pcall(on_request, request)
    if not ok then answer = { error = { kind = type(answer) == "table" and answer.kind or "internal", message = tostring(answer) } } end
    client:write(json.encode(answer or {}) .. "\n", function() client:close() end)
  else
    client:close()
  end
end

-- A file is told from one that took its name since by both: inodes are given out again.
local function is_same(a, b)
  return a and b and a.ino == b.ino and a.ctime.sec == b.ctime.sec and a.ctime.nsec == b.ctime.nsec
end

-- Listens at the path, in the place of the stale socket that is to be there still. One process at a time does this: who
-- finds a dead one's socket would else take away the one that another has put in its place.
---@return table? pipe
---@return table? err
---@return table? other  what is there, where that is why not
local function listen(state, path, stale, clients)
  local pipe, other = uv.new_pipe(), nil
  local ok, why, code
  local done, err = state:transaction(function()
    if stale and is_same(uv.fs_stat(path), stale) then uv.fs_unlink(path) end
    ok, why, code = pipe:bind(path)
    if ok then ok, why, code = pipe:listen(16, function()
      local client = uv.new_pipe()
      pipe:accept(client)
      clients:push(client)
    end) end
    if code == "EADDRINUSE" then other = uv.fs_stat(path) end
  end)
  if done and ok then return pipe end
  pipe:close()
  if not done then return nil, err end
  if code == "EADDRINUSE" then return nil, nil, other end
  return nil, runtime.error("system", ("cannot listen on %s: %s"):format(path, why))
end

--- Takes hold of a job.
---@param agent Agent
---@param job string
---@param on_request fun(request: table): table?  what somebody asks, and the answer; may wait
---@return Claim? claim  until it is closed
---@return table? err    kind "taken": another process watches the job; "system"; those of the state
function M.hold(agent, job, on_request)
  local state_dir = agent.options.state_dir
  local path = path_of(state_dir, agent.engine:endpoint(), job)
  if #path > LONGEST then
    return nil, runtime.error("system", ("the path of the state directory is too long for a socket: %s"):format(state_dir))
  end
  local ok, why = make_directory(path)
  if not ok then return nil, runtime.error("system", "cannot make the state directory: " .. why) end
  local clients = queue.new()
  local pipe, err, other
  repeat
    pipe, err, other = listen(agent.state, path, other, clients)
    if err then return nil, err end
    local holder = other and connect(path)
    if holder then
      holder:close()
      return nil, runtime.error("taken", ("job '%s' is run by another dockrun; `dockrun stop %s` ends it"):format(job, job))
    end
  until pipe
  pipe:unref()
  -- A task of the caller's, and no callback of the pipe: what it serves lives as long as what holds the job.
  local server = runtime.spawn_free(function()
    while true do runtime.spawn(serve, clients:pop(), on_request) end
  end)
  return setmetatable({ pipe = pipe, path = path, server = server }, Claim)
end

--- Lets go of it. Idempotent.
function Claim:close()
  if not self.pipe then return end
  self.pipe:close()  -- and libuv unlinks the socket
  self.server:cancel()
  self.pipe = nil
end

Claim.__close = Claim.close

--- The name under which the agent is held: no job is called so.
M.agent = ""

--- Asks the process that watches a job for something, and waits for its answer.
---@param agent Agent
---@param job string
---@param request table
---@return table? answer  nil where no process watches it, or it ended meanwhile
---@return table? err     of the other process
function M.ask(agent, job, request)
  local path = path_of(agent.options.state_dir, agent.engine:endpoint(), job)
  local pipe = #path <= LONGEST and uv.fs_stat(path) and connect(path)
  if not pipe then return nil end
  pipe:write(json.encode(request) .. "\n")
  local answer = json.decode(read_line(pipe) or "")
  if not pipe:is_closing() then pipe:close() end
  if type(answer) ~= "table" then return nil end
  if answer.error then return nil, runtime.error(answer.error.kind, answer.error.message) end
  return answer
end

return M
