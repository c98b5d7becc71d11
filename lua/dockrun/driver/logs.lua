-- A container's output, as the engine keeps it, to the function that shows it: each byte once, in order.
local runtime = require "dockrun.core.runtime"
local timestamp = require "dockrun.util.time"

local M = {}

local STAMP = "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d+Z "
local PIECE = 16384  -- bytes; the engine keeps a longer line in pieces, and stamps each of them

-- The end of the first entry of a terminal's output, whose entries have no frames: a line with its line break, or a piece
-- of PIECE bytes that another stamp follows. nil if it has not come yet.
local function end_of_entry(text, at)
  local _, stamp = text:find(STAMP, at)
  local stop = text:find("\n", at, true)
  local piece = (stamp or at - 1) + PIECE
  if stamp and piece < (stop or #text) and text:find(STAMP, piece + 1) then return piece end
  return stop
end

-- Reads the entries of a terminal's output.
local function read_terminal(stream, found)
  local rest = ""
  while true do
    local bytes, err = stream:read()
    if not bytes then
      if not err and rest ~= "" then found(rest, "stdout") end
      return not err, err
    end
    rest = rest .. bytes
    local at, stop = 1, end_of_entry(rest, 1)
    while stop do
      if found(rest:sub(at, stop), "stdout") == false then return true end
      at, stop = stop + 1, end_of_entry(rest, stop + 1)
    end
    rest = rest:sub(at)
  end
end

-- Reads the entries of all other output: each is a frame.
local function read_frames(stream, found)
  local parts = {}
  while true do
    local bytes, which = stream:read()
    if not bytes then return not which, which end
    parts[#parts + 1] = bytes
    if stream:at_end_of_frame() then
      if found(table.concat(parts), which) == false then return true end
      parts = {}
    end
  end
end

-- What was told of each stream: the time of its last entry, and how many entries had that time.
local Told = {}
Told.__index = Told

function Told:add(stream, time)
  local last = self.last[stream]
  self.last[stream] = { time = time, entries = last and last.time == time and last.entries + 1 or 1 }
end

-- From here on, what was told is told by the engine again.
function Told:rewind()
  for stream, last in pairs(self.last) do self.again[stream] = { time = last.time, entries = last.entries } end
end

function Told:has(stream, time)
  local again = self.again[stream]
  if not again or time > again.time or time == again.time and again.entries == 0 then
    self.again[stream] = nil
    return false
  end
  if time == again.time then again.entries = again.entries - 1 end
  return true
end

-- A moment as the engine takes it.
local function moment(time)
  local seconds = timestamp.seconds(time)
  return seconds and seconds .. (time:match "%.%d+" or "")
end

-- From when on the engine is to tell it, so that nothing is lost, or nil.
function Told:since()
  local earliest
  for _, last in pairs(self.last) do
    if not earliest or last.time < earliest then earliest = last.time end
  end
  return earliest and moment(earliest)
end

local PATIENCE = 60  -- seconds for an engine to come back
local TRIES = 4      -- readings in a row that fail and tell nothing, after which the output of an ended container is given up

-- Whether the container is there, and runs. An engine that is away is waited for: it may have left its containers running.
local function look(engine, id)
  local deadline = runtime.now() + PATIENCE
  while true do
    local found, err = engine:container_inspect(id)
    if found or err.status == 404 or runtime.now() > deadline then return found ~= nil, found and found.State.Running, err end
    runtime.sleep(0.5)
  end
end

-- One reading of the output. Adds to `told`; `show` may end it by returning false.
---@return boolean? ended  false: by `show`
---@return table? err
---@return boolean? news  it showed something
local function read(engine, id, opts, told, show)
  local stream <close>, err = engine:container_logs(id, {
    stdout = true, stderr = true, follow = opts.follow, tail = opts.tail, since = opts.since, tty = opts.tty, timestamps = true,
  })
  if not stream then return nil, err end
  local goes_on, news = true, false
  local ended, why = (opts.tty and read_terminal or read_frames)(stream, function(entry, name)
    local time, bytes = entry:match "^(%S+) (.*)$"
    if time and told:has(name, time) then return end
    if time then told:add(name, time) end
    goes_on, news = show(bytes or entry, name, time) ~= false, true
    return goes_on
  end)
  if not goes_on then return false end
  return ended or nil, why, news
end

--- Calls `show(bytes, stream, time)` for every entry of a container's output: a line with its line break, a piece of a
--- long line, or what stands after the last line break. It returns false if it wants no more. Returns at the end of the
--- output, or, with `follow`, of the container; after a break of the connection it continues where that was.
---@param engine table
---@param id string
---@param opts { follow?: boolean, tail?: string, since?: string, tty?: boolean }
---@param show fun(bytes: string, stream: "stdout"|"stderr", time?: string): false?  time: RFC 3339, nanoseconds
---@return true? ok
---@return table? err
function M.each(engine, id, opts, show)
  local told, began = setmetatable({ last = {}, again = {} }, Told), moment(timestamp.format())
  local now, has_ended = { follow = opts.follow, tail = opts.tail, since = opts.since, tty = opts.tty }, false
  local failures = 0
  while true do
    local ended, why, news = read(engine, id, now, told, show)
    failures = (ended or news) and 0 or failures + 1
    if ended == false then return true end
    if not opts.follow then return ended, why end
    if ended and now.follow then
      now.follow, has_ended = false, true  -- the engine leaves an unfinished line out of a stream that follows, and has it then
    else
      local there, running, problem = look(engine, id)
      if not there and has_ended then return true end
      if not there then return nil, problem or why end
      if ended and not running then return true end  -- else the engine ended the stream
      if failures >= TRIES and not running then return nil, why end
      if failures > 0 then runtime.sleep(math.min(0.1 * 2 ^ failures, 2)) end
      now.follow, has_ended = running, not running
      if ended then runtime.sleep(0.5) end
    end
    told:rewind()
    local last = told:since()
    if last or now.tail == "0" then now.since = last or began end
    now.tail = nil
  end
end

return M
