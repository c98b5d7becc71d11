--- One request and its answer over a unix socket, each a line of JSON. Neither side can make the other wait without end, or
--- hold more than so many bytes.
local json = require "dockrun.core.json"
local peers = require "dockrun.core.peer"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local LARGEST = 32 << 20  -- bytes of a line: a request holds a job file
local READING = 30        -- seconds that a client may take to send its request, and to read its answer
local MOST_CLIENTS = 8    -- of one user, that have not sent their request yet
local CONNECTING = 5      -- seconds

-- ---- lines ------------------------------------------------------------------------------------

---@class LineReader
---@field pipe table
---@field pieces table   a queue: text, or false at the end
---@field parts string[]
---@field size integer
local LineReader = {}
LineReader.__index = LineReader

---@param pipe table
---@return LineReader
local function line_reader(pipe)
  local self = setmetatable({ pipe = pipe, pieces = queue.new(), parts = {}, size = 0 }, LineReader)
  pipe:read_start(function(_, data) self.pieces:push(data or false) end)
  return self
end

--- The next line. May be called again after a time-out.
---@param seconds number
---@return string? line
---@return "timeout"|"ended"|"too long"|nil why
function LineReader:line(seconds)
  local deadline = runtime.now() + seconds
  while true do
    local piece = self.pieces:pop(math.max(deadline - runtime.now(), 0))
    if piece == false then return nil, "ended" end
    if not piece then return nil, "timeout" end
    local stop = piece:find("\n", 1, true)
    self.parts[#self.parts + 1] = stop and piece:sub(1, stop - 1) or piece
    self.size = self.size + #piece
    if stop or self.size > LARGEST then
      self.pipe:read_stop()
      if self.size > LARGEST then return nil, "too long" end
      return table.concat(self.parts)
    end
  end
end

local function close(pipe)
  if not pipe:is_closing() then pipe:close() end
end

-- ---- the side that answers --------------------------------------------------------------------

local function error_answer(err)
  local known = type(err) == "table"
  return { error = { kind = known and type(err.kind) == "string" and err.kind or "internal", message = tostring(err) } }
end

-- The answer to a line. An empty line gets none: a client sends it to check that this process responds.
local function answer_to(line, on_request)
  if not line:find "%S" then return nil end
  local ok, request = pcall(json.decode, line)
  if not ok or type(request) ~= "table" then
    return error_answer(runtime.error("invalid", "a request must be a JSON object in one line"))
  end
  local answer
  ok, answer = pcall(on_request, request)
  return ok and (answer or {}) or error_answer(answer)
end

local function reply(client, answer)
  local ok, text = pcall(json.encode, answer)
  if not ok then text = json.encode(error_answer "the answer cannot be written as JSON") end
  local written = queue.new()
  if client:write(text .. "\n", function() written:push(true) end) then written:pop(READING) end
end

-- How many clients of a user are being read.
local function count(counts, uid, more)
  local now = (counts[uid] or 0) + more
  counts[uid] = now > 0 and now or nil
  return now
end

local function read_request(client, counts, uid)
  local _ <close> = setmetatable({}, { __close = function() count(counts, uid, -1) end })
  if count(counts, uid, 1) > MOST_CLIENTS then return nil, "too many" end
  return line_reader(client):line(READING)
end

local complaints = {
  ["too many"] = { "busy", ("more than %d clients of this user have sent no request yet; try again"):format(MOST_CLIENTS) },
  ["too long"] = { "invalid", ("a request has at most %d bytes"):format(LARGEST) },
  timeout = { "invalid", ("a request must come within %d s"):format(READING) },
}

--- Makes the function that answers the clients of a listening pipe.
---@param may_ask fun(peer: table): boolean  whether a peer (see core/host/peer.c) is answered at all
---@param on_request fun(request: table): table?  an error that it raises is sent to the client; may wait
---@return fun(client: table) serve  for each pipe that was accepted, in a fiber of its own; closes it
function M.server(may_ask, on_request)
  local counts = {}
  return function(client)
    local _ <close> = setmetatable({}, { __close = function() close(client) end })
    local fd = uv.fileno(client)
    local peer = fd and peers.of(fd)
    if not peer or not may_ask(peer) then return end
    local line, why = read_request(client, counts, peer.uid)
    local answer
    if line then answer = answer_to(line, on_request) end
    if complaints[why] then answer = error_answer(runtime.error(table.unpack(complaints[why]))) end
    if answer then reply(client, answer) end
  end
end

-- ---- the side that asks -----------------------------------------------------------------------

--- Connects to a socket.
---@param path string
---@return table? pipe
---@return string code_or_peer  the error's code: ECONNREFUSED, ENOENT if no process listens
local function connect(path)
  local pipe, answer = uv.new_pipe(), queue.new()
  pipe:connect(path, function(why) answer:push(why or true) end)
  local came = answer:pop(CONNECTING)
  if came == true then return pipe, "" end
  close(pipe)
  return nil, came and came:match "^%u+" or "ETIMEDOUT"
end

--- The process that listens on a socket.
---@param path string
---@return "none"|"there"|"foreign" status  none: its process has ended; foreign: another user's
---@return table? peer  see core/host/peer.c; nil if unknown
function M.listener(path)
  local pipe, code = connect(path)
  if not pipe then return (code == "ECONNREFUSED" or code == "ENOENT") and "none" or "there" end
  local peer = peers.of(uv.fileno(pipe))
  close(pipe)
  if peer and peer.uid ~= 0 and peer.uid ~= uv.getuid() then return "foreign", peer end
  return "there", peer
end

-- Whether the listening process responds within so many seconds: it closes a connection that sends an empty line.
local function lives(path, seconds)
  local deadline = runtime.now() + seconds
  repeat
    local pipe = connect(path)
    if pipe then
      pipe:write "\n"
      local _, why = line_reader(pipe):line(deadline - runtime.now())
      close(pipe)
      return why ~= "timeout"
    end
    runtime.sleep(math.min(0.2, math.max(deadline - runtime.now(), 0)))
  until runtime.now() >= deadline
  return false
end

local CHECK_AFTER = 5  -- seconds of silence before checking that the other process responds

local function await_answer(reader, path, patience, deadline)
  while true do
    local left = deadline - runtime.now()
    local line, why = reader:line(math.max(math.min(CHECK_AFTER, patience, left), 0))
    if line or why ~= "timeout" then return line, why end
    if runtime.now() >= deadline then return nil, "timeout" end
    if reader.size > 0 or not lives(path, patience) then
      line, why = reader:line(0)  -- it may have come meanwhile
      if line or why ~= "timeout" then return line, why end
      return nil, "hung"
    end
  end
end

local function is_error(value) return type(value) == "table" and type(value.kind) == "string" and type(value.message) == "string" end

--- Asks the process that listens on a socket for something, and waits for its answer as long as that process lives.
---@param path string
---@param request table
---@param patience number   seconds that it may show no sign of life
---@param timeout? number   seconds that it may take in all
---@return table? answer
---@return "none"|"ended"|"hung"|"timeout"|"foreign"|"broken"|table|nil why  none: no process listens; ended: it ended
---  without an answer; broken: its answer is invalid; a table: the error that it answered
---@return table? peer
function M.ask(path, request, patience, timeout)
  local deadline = runtime.now() + (timeout or math.huge)
  local pipe, code
  repeat
    pipe, code = connect(path)
    if code == "ECONNREFUSED" or code == "ENOENT" then return nil, "none" end
    if not pipe then runtime.sleep(0.2) end
    patience = pipe and patience or patience - 0.2
    if patience <= 0 or runtime.now() > deadline then return nil, patience <= 0 and "hung" or "timeout" end
  until pipe
  local _ <close> = setmetatable({}, { __close = function() close(pipe) end })
  local peer = peers.of(uv.fileno(pipe))
  if peer and peer.uid ~= 0 and peer.uid ~= uv.getuid() then return nil, "foreign", peer end
  pipe:write(json.encode(request) .. "\n")
  local line, why = await_answer(line_reader(pipe), path, patience, deadline)
  if not line then return nil, why == "too long" and "broken" or why, peer end
  local ok, answer = pcall(json.decode, line)
  if not ok or type(answer) ~= "table" then return nil, "broken", peer end
  if answer.error == nil then return answer, nil, peer end
  if not is_error(answer.error) then return nil, "broken", peer end
  return nil, runtime.error(answer.error.kind, answer.error.message), peer
end

return M
