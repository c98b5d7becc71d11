-- A container's output, as the engine keeps it, to the function that shows it: each byte once, in order.
local events = require "dockrun.events"
local runtime = require "dockrun.core.runtime"
local timestamp = require "dockrun.timestamp"

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

local KEPT = 32768      -- entries; the files of an engine's log by default hold 60,000 of the shortest lines
local DOUBT = 65536     -- bytes after which a pause in the output may hide entries that the engine left out
local PAUSE = 0.05      -- seconds; engines need longer to fill a file of 2 MB
local STALLED = 0.5     -- seconds that the showing of an entry took; the engine may have gone on meanwhile

-- What was told. An engine that follows a log which is rotated faster than it is read leaves entries out without a word,
-- and tells a file of it twice (Docker 20.10 both, newer ones the first).
local Told = {}
Told.__index = Told

-- A time as a number, which takes little memory: its day of the month, and what follows.
local function mark(time) return tonumber((time:sub(9):gsub("%D", ""))) or 0 end

local function nothing_told()
  return setmetatable({
    last = {},                -- by stream: the time of its last entry, and how many entries had that time
    again = {},               -- by stream: up to where it is told again; of the form of `last`
    latest = nil,             -- the time of the last entry
    awaited = nil,            -- the time of an entry that must be told again before any new one: else some are missing
    young = {}, old = {}, size = 0,  -- the times of the last KEPT entries and more
    unsure = DOUBT,           -- bytes since it was made sure that nothing is missing
  }, Told)
end

function Told:add(stream, time, entry)
  local last = self.last[stream]
  self.last[stream] = { time = time, entries = last and last.time == time and last.entries + 1 or 1, entry = entry }
  if not self.latest or time > self.latest then self.latest = time end
  if self.size == KEPT then self.old, self.young, self.size = self.young, {}, 0 end
  self.young[mark(time)], self.size = true, self.size + 1
  self.unsure = self.unsure + #entry
end

-- From here on, what was told of a stream, or of all, is told by the engine again.
function Told:rewind(only)
  for stream, last in pairs(self.last) do
    if not only or stream == only then self.again[stream] = { time = last.time, entries = last.entries } end
  end
  if not only then self.awaited, self.unsure = self.latest, math.min(self.unsure, 0) end
end

-- Whether the engine begins to tell a file again. Only pieces of a line have one time.
function Told:repeats(stream, time, entry)
  local last, again = self.last[stream], self.again[stream]
  if not last or again and again.entries > 0 then return false end
  if time == last.time then return entry == last.entry and entry:sub(-1) == "\n" end
  return time < last.time and (self.young[mark(time)] or self.old[mark(time)])
end

function Told:has(stream, time, entry)
  if time == self.awaited then self.awaited = nil end
  if self:repeats(stream, time, entry) then self:rewind(stream) end
  local again = self.again[stream]
  if not again or time > again.time or time == again.time and again.entries == 0 then
    self.again[stream] = nil
    return false
  end
  if time == again.time then again.entries = again.entries - 1 end
  return true
end

-- Whether entries may be missing before a new one, which reading again from the last one shows.
function Told:doubts(time)
  if self.unsure < DOUBT or not self.latest or time <= self.latest then return false end
  local from, to = timestamp.seconds(self.latest), timestamp.seconds(time)
  if not from or not to then return false end
  return to - from + (tonumber(time:match "%.%d+") or 0) - (tonumber(self.latest:match "%.%d+") or 0) > PAUSE
end

-- Whether entries may be missing before a new one: the engine's log begins after the last one that was told.
function Told:misses(time)
  local missing = self.awaited and time > self.awaited
  if missing then self.awaited = nil end
  return missing
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

local LOST = "output after %s may be missing from the engine's log: %s; "
  .. "give the task's `logging` a larger max-size or max-file"

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

local read

-- Reads once more what the engine has between the last entry and a new one, and shows it.
local function make_sure(engine, id, opts, told, time, show, gap)
  local again, latest = told.again, told.latest
  told.again = {}
  told:rewind()
  local ended = read(engine, id, { since = told:since(), before = time, tty = opts.tty }, told, function(bytes, name, at)
    return at ~= nil and at < time and show(bytes, name, at)
  end, gap)
  if ended == nil then told.unsure = told.unsure + DOUBT end  -- it could not be read
  if ended ~= nil and told:misses(time) then gap(latest) end
  told.again, told.awaited = again, nil
end

-- One reading of the output. Adds to `told`; `show` may end it by returning false.
---@return boolean? ended  false: by `show`
---@return table? err
---@return boolean? news  it showed something
function read(engine, id, opts, told, show, gap)
  local stream <close>, err = engine:container_logs(id, {
    stdout = true, stderr = true, follow = opts.follow, tail = opts.tail, since = opts.since,
    ["until"] = opts.before and moment(opts.before), tty = opts.tty, timestamps = true,
  })
  if not stream then return nil, err end
  local goes_on, news = true, false
  local ended, why = (opts.tty and read_terminal or read_frames)(stream, function(entry, name)
    if name == "error" or entry:find "^Error grabbing logs: " then return gap(told.latest, (entry:gsub("%s+$", ""))) end  -- the engine's
    local time, bytes = entry:match "^(%S+) (.*)$"
    if time and told:has(name, time, entry) then return end
    if time and opts.follow and told:doubts(time) then make_sure(engine, id, opts, told, time, show, gap) end
    if time and told:misses(time) then gap(told.latest) end
    local began = runtime.now()
    goes_on, news = show(bytes or entry, name, time) ~= false, true
    if time and goes_on then told:add(name, time, entry) end
    if runtime.now() - began > STALLED then told.unsure = told.unsure + DOUBT end
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
---@param on_gap fun(text: string)  called once, if entries may be missing because the engine rotated its log meanwhile
---@return true? ok
---@return table? err
function M.each(engine, id, opts, show, on_gap)
  local told, began = nothing_told(), moment(events.timestamp())
  local now, has_ended = { follow = opts.follow, tail = opts.tail, since = opts.since, tty = opts.tty }, false
  local failures, is_told = 0, false
  local function gap(after, why)
    told.unsure = -math.huge  -- it is said once; then no more is read than must be
    if not is_told then on_gap(LOST:format(after or "its start", why or "it rotates faster than it can be read")) end
    is_told = true
  end
  while true do
    local ended, why, news = read(engine, id, now, told, show, gap)
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
