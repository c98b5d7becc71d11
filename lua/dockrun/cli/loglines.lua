-- A container's output, line by line, to whoever shows it.
local runtime = require "dockrun.core.runtime"
local timestamp = require "dockrun.timestamp"

local M = {}

local STAMP = "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d+Z "
local PIECE = 16384  -- bytes; the engine keeps a longer line in pieces, and stamps each of them

-- A line of the engine's as its time and its text. The times are all of the same width, so they compare as text.
local function take_apart(line)
  local time, text = line:match "^(%S+) (.*)$"
  local at = PIECE + 1
  while text and #text > at do
    local _, stop = text:find("^" .. STAMP, at)
    if not stop then break end
    text, at = text:sub(1, at - 1) .. text:sub(stop + 1), at + PIECE
  end
  return time, text or line
end

-- Calls `found(line, stream)` for each line until the stream ends or breaks. What stands after the last line break comes
-- only where it ended: after a break the engine tells that line again.
local function read(stream, found)
  local rest = {}
  while true do
    local text, which = stream:read()
    if text == nil then
      for name, last in pairs(which == nil and rest or {}) do
        if last ~= "" then found(last, name) end
      end
      return which == nil, which
    end
    local start, all = 1, (rest[which] or "") .. text
    for at, next_at in all:gmatch "()\n()" do
      found((all:sub(start, at - 1):gsub("\r$", "")), which)
      start = next_at
    end
    rest[which] = all:sub(start)
  end
end

-- What was told of each stream: the time of its last line, and how many lines had that time.
local Told = {}
Told.__index = Told

function Told:add(stream, time)
  local last = self.last[stream]
  self.last[stream] = { time = time, lines = last and last.time == time and last.lines + 1 or 1 }
end

-- From here on, what was told is told by the engine again.
function Told:rewind()
  for stream, last in pairs(self.last) do self.again[stream] = { time = last.time, lines = last.lines } end
end

function Told:has(stream, time)
  local again = self.again[stream]
  if not again or time > again.time or time == again.time and again.lines == 0 then
    self.again[stream] = nil
    return false
  end
  if time == again.time then again.lines = again.lines - 1 end
  return true
end

-- From when on the engine is to tell it, so that nothing is lost: as it takes a moment, or nil.
function Told:since()
  local earliest
  for _, last in pairs(self.last) do
    if not earliest or last.time < earliest then earliest = last.time end
  end
  local seconds = earliest and timestamp.seconds(earliest)
  return seconds and seconds .. (earliest:match "%.%d+" or "")
end

local PATIENCE = 60  -- seconds for an engine to come back

-- Whether the container is there, and runs. An engine that is away is waited for: it may have left its containers running.
local function look(engine, id)
  local deadline = runtime.now() + PATIENCE
  while true do
    local found, err = engine:container_inspect(id)
    if found or err.status == 404 or runtime.now() > deadline then return found ~= nil, found and found.State.Running, err end
    runtime.sleep(0.5)
  end
end

--- Calls `line(text, stream, time)` for every line of a container's output. Returns at its end, or, with `follow`, at the
--- container's; after a break of the connection it goes on where that was.
---@param engine table
---@param id string
---@param opts { follow?: boolean, tail?: string, since?: string, tty?: boolean }
---@param line fun(text: string, stream: "stdout"|"stderr", time?: string)  time: RFC 3339, nanoseconds
---@return true? ok
---@return table? err
function M.each(engine, id, opts, line)
  local told, tail, since = setmetatable({ last = {}, again = {} }, Told), opts.tail, opts.since
  while true do
    local stream <close>, err = engine:container_logs(id, {
      stdout = true, stderr = true, follow = opts.follow, tail = tail, since = since, tty = opts.tty, timestamps = true,
    })
    if not stream then return nil, err end
    local ended, why = read(stream, function(whole, name)
      local time, text = take_apart(whole)
      if time and told:has(name, time) then return end
      if time then told:add(name, time) end
      line(text, name, time)
    end)
    if not opts.follow then return ended or nil, why end
    local there, running, problem = look(engine, id)
    if ended and not running then return true end  -- else it was the engine that ended the stream
    if not there then return nil, problem or why end
    told:rewind()
    if told:since() then since, tail = told:since(), nil end
    if ended then runtime.sleep(0.5) end
  end
end

return M
