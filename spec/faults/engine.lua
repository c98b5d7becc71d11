-- A fake engine: it answers the calls of a `dockrun run` of one task correctly, except one call, whose answer the spec
-- chooses. Only these specs may fake an engine, because a real one does not send invalid answers.
--
--   local e <close> = engine.start { container_create = "HTTP/1.1 201 Created\r\n…" }
--   … dockrun --endpoint <e.endpoint> …
local dockrun = require "dockrun"
local uv = require "luv"

local M = {}

local ID, IMAGE = ("c"):rep(64), "sha256:" .. ("1"):rep(64)

--- An answer with a body of known length.
---@param body string
---@param status? string  "200 OK"
---@return string
function M.answer(body, status)
  return ("HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"):format(status or "200 OK", #body, body)
end

local function json(value, status) return M.answer(dockrun.json.encode(value), status) end

local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

local function chunk(text) return ("%x\r\n%s\r\n"):format(#text, text) end

local EVENT = ('{"Type":"container","Action":"die","Actor":{"ID":"%s","Attributes":{"exitCode":"0"}},"timeNano":1700000000000000001}\n')
  :format(ID)

--- The correct answers, call by call, as decoded documents.
M.documents = {
  version = { Version = "20.10.24", ApiVersion = "1.41", MinAPIVersion = "1.12" },
  info = { OSType = "linux", CgroupVersion = "1", Runtimes = { runc = { path = "runc" } } },
  network_inspect = { IPAM = { Config = { { Gateway = "172.17.0.1" } } } },
  container_list = dockrun.json.array {},
  image_inspect = { Id = IMAGE },
  container_create = { Id = ID, Warnings = dockrun.json.array {} },
  container_inspect = {
    Id = ID, Name = "/task", Image = IMAGE, RestartCount = 0, HostConfig = {},
    State = {
      Status = "exited", Running = false, Paused = false, Restarting = false, OOMKilled = false, Pid = 0, ExitCode = 0, Error = "",
      StartedAt = "2026-01-01T00:00:00Z", FinishedAt = "2026-01-01T00:00:01Z",
    },
    Config = { Image = "busybox:1", Tty = false, Labels = {} }, NetworkSettings = { Networks = {} },
  },
}

-- The first pattern that matches a request names its call.
M.calls = {
  { "version", "^GET .*/version$" },
  { "system_ping", "^GET /_ping" },
  { "events", "^GET .*/events" },
  { "info", "^GET .*/info$" },
  { "network_inspect", "^GET .*/networks/" },
  { "container_list", "^GET .*/containers/json" },
  { "image_inspect", "^GET .*/images/.*/json" },
  { "container_create", "^POST .*/containers/create" },
  { "container_start", "^POST .*/start$" },
  { "container_logs", "^GET .*/logs" },
  { "container_inspect", "^GET .*/containers/%x+/json" },
  { "container_remove", "^DELETE " },
}

local good = {
  system_ping = M.answer "OK",
  events = HEAD .. chunk(EVENT),  -- and the stream stays open
  container_start = M.answer("", "204 No Content"),
  container_logs = HEAD:gsub("application/json", "application/vnd.docker.multiplexed-stream")
    .. chunk "\1\0\0\0\0\0\0\6hello\n" .. "0\r\n\r\n",
  container_remove = M.answer("", "204 No Content"),
}
for call, document in pairs(M.documents) do good[call] = json(document, call == "container_create" and "201 Created" or nil) end

local function call_of(line)
  for _, row in ipairs(M.calls) do
    if line:find(row[2]) then return row[1] end
  end
end

---@class FalseEngine
---@field endpoint string
---@field asked table<string, integer>  the number of requests, by call
local Engine = {}
Engine.__index = Engine

-- An answer is a text, { text, close = true } to close the connection after it, or a function that returns text without end.
local function reply(self, client, answer)
  if type(answer) == "function" then
    local written = dockrun.queue()
    for text in answer() do
      if client:is_closing() or not client:write(text, function(err) written:push(err or true) end) then return end
      if written:pop() ~= true then return end
    end
    return
  end
  local text = type(answer) == "table" and answer[1] or answer
  client:write(text, function()
    if type(answer) == "table" and not client:is_closing() then client:close() end
  end)
  self.answered = (self.answered or 0) + #text
end

local function serve(self, client)
  local text = ""
  client:read_start(function(_, data)
    if not data then
      if not client:is_closing() then client:close() end
      return
    end
    text = text .. data
    while true do
      local head, past = text:match "^(.-\r\n)\r\n()"
      if not head then return end
      local length = tonumber(head:match "[Cc]ontent%-[Ll]ength: *(%d+)") or 0
      if #text - past + 1 < length then return end
      text = text:sub(past + length)
      local call = call_of(head:match "^(%u+ %S+) HTTP")
      if not call then
        reply(self, client, M.answer('{"message":"no such call"}', "404 Not Found"))
      else
        self.asked[call] = (self.asked[call] or 0) + 1
        reply(self, client, self.answers[call] or good[call])
      end
    end
  end)
end

---@param answers table<string, string|{ [1]: string, close: true }|fun(): (fun(): string?)>  by call
---@return FalseEngine
function M.start(answers)
  local path = os.tmpname()
  os.remove(path)
  local self = setmetatable({ path = path, endpoint = "unix://" .. path, answers = answers, asked = {}, clients = {} }, Engine)
  self.server = uv.new_pipe()
  assert(self.server:bind(path))
  assert(self.server:listen(64, function()
    local client = uv.new_pipe()
    self.server:accept(client)
    self.clients[#self.clients + 1] = client
    serve(self, client)
  end))
  return self
end

--- May be called twice.
function Engine:close()
  if not self.server:is_closing() then self.server:close() end
  for _, client in ipairs(self.clients) do
    if not client:is_closing() then client:close() end
  end
  os.remove(self.path)
end

Engine.__close = Engine.close

return M
