--- A container's output, as the engine keeps it: each entry once, in order, also across breaks of the connection. An engine
--- that rotates its log faster than it is read loses entries; then `on_gap` is called once.
local runtime = require "dockrun.core.runtime"
local timestamp = require "dockrun.util.time"

local M = {}

local STAMP = "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d+Z "
local PIECE = 16384  -- bytes; the engine splits a longer line, and stamps each piece

-- The end of the first entry of a terminal's output, whose entries have no frames: a line with its line break, or a piece
-- of PIECE bytes that another stamp follows. nil if it is not complete yet.
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

-- Reads the entries of a container without a terminal: each is a frame.
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

local KEPT = 32768      -- entries; with the engine's default log files there are at most 60,000 short lines
local DOUBT = 65536     -- bytes after which a pause in the output may mean that the engine left out entries
local PAUSE = 0.05      -- seconds; engines need longer to fill a file of 2 MB
local STALLED = 0.5     -- seconds for showing one entry; the engine may have rotated its log meanwhile

-- The entries that were shown. An engine that follows a log which is rotated faster than it is read leaves out entries
-- silently, and may send a file twice (Docker 20.10 does both, newer versions the first).
local History = {}
History.__index = History

-- A time as a number, which takes little memory: its day of the month, and what follows.
local function mark(time) return tonumber((time:sub(9):gsub("%D", ""))) or 0 end

local function new_history()
  return setmetatable({
    last = {},                -- by stream: the time of its last entry, and how many entries had that time
    again = {},               -- by stream: the entry up to which the engine repeats; as `last`
    latest = nil,             -- the time of the last entry
    awaited = nil,            -- the time of an entry that must be repeated before a new one; otherwise some are missing
    young = {}, old = {}, size = 0,  -- the times of the last KEPT entries and more
    unsure = DOUBT,           -- bytes since the last check that nothing is missing
  }, History)
end

function History:add(stream, time, entry)
  local last = self.last[stream]
  self.last[stream] = { time = time, entries = last and last.time == time and last.entries + 1 or 1, entry = entry }
  if not self.latest or time > self.latest then self.latest = time end
  if self.size == KEPT then self.old, self.young, self.size = self.young, {}, 0 end
  self.young[mark(time)], self.size = true, self.size + 1
  self.unsure = self.unsure + #entry
end

-- From now on the engine repeats what was shown of a stream, or of all.
function History:rewind(only)
  for stream, last in pairs(self.last) do
    if not only or stream == only then self.again[stream] = { time = last.time, entries = last.entries } end
  end
  if not only then self.awaited, self.unsure = self.latest, math.min(self.unsure, 0) end
end

-- Whether the engine starts to repeat a file. Only pieces of one line have the same time.
function History:repeats(stream, time, entry)
  local last, again = self.last[stream], self.again[stream]
  if not last or again and again.entries > 0 then return false end
  if time == last.time then return entry == last.entry and entry:sub(-1) == "\n" end
  return time < last.time and (self.young[mark(time)] or self.old[mark(time)])
end

function History:has(stream, time, entry)
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

-- Whether entries may be missing before a new one, so that the log must be read again from the last one.
function History:doubts(time)
  if self.unsure < DOUBT or not self.latest or time <= self.latest then return false end
  local from, to = timestamp.seconds(self.latest), timestamp.seconds(time)
  if not from or not to then return false end
  return to - from + (tonumber(time:match "%.%d+") or 0) - (tonumber(self.latest:match "%.%d+") or 0) > PAUSE
end

-- Whether entries are missing before a new one: the engine's log begins after the last one that was shown.
function History:misses(time)
  local missing = self.awaited and time > self.awaited
  if missing then self.awaited = nil end
  return missing
end

-- RFC 3339 -> the engine's form: seconds.nanoseconds
local function moment(time)
  local seconds = timestamp.seconds(time)
  return seconds and seconds .. (time:match "%.%d+" or "")
end

-- The moment from which the engine must send the log so that nothing is lost, or nil.
function History:since()
  local earliest
  for _, last in pairs(self.last) do
    if not earliest or last.time < earliest then earliest = last.time end
  end
  return earliest and moment(earliest)
end

local LOST = "output after %s may be missing from the engine's log: %s; "
  .. "give the task's `logging` a larger max-size or max-file"

local PATIENCE = 60  -- seconds for an engine to come back
local TRIES = 4      -- failed readings in a row without an entry, after which the output of an ended container is given up

-- Whether the container exists, and whether it runs. Waits for an engine that is down: its containers may still run.
local function inspect(engine, id)
  local deadline = runtime.now() + PATIENCE
  while true do
    local found, err = engine:container_inspect(id)
    if found or err.status == 404 or runtime.now() > deadline then return found ~= nil, found and found.State.Running, err end
    runtime.sleep(0.5)
  end
end

local read

-- Reads the log between the last entry and a new one again, and shows what was missing.
local function read_again(engine, id, opts, history, time, show, gap)
  local again, latest = history.again, history.latest
  history.again = {}
  history:rewind()
  local ended = read(engine, id, { since = history:since(), before = time, tty = opts.tty }, history, function(bytes, name, at)
    return at ~= nil and at < time and show(bytes, name, at)
  end, gap)
  if ended == nil then history.unsure = history.unsure + DOUBT end  -- the log could not be read
  if ended ~= nil and history:misses(time) then gap(latest) end
  history.again, history.awaited = again, nil
end

-- Reads the output once. Adds to the history; `show` may end it by returning false.
---@return boolean? ended  false: by `show`
---@return table? err
---@return boolean? news  an entry was shown
function read(engine, id, opts, history, show, gap)
  local stream <close>, err = engine:container_logs(id, {
    stdout = true, stderr = true, follow = opts.follow, tail = opts.tail, since = opts.since,
    ["until"] = opts.before and moment(opts.before), tty = opts.tty, timestamps = true,
  })
  if not stream then return nil, err end
  local wanted, news = true, false
  local ended, why = (opts.tty and read_terminal or read_frames)(stream, function(entry, name)
    -- The engine's own words.
    if name == "error" or entry:find "^Error grabbing logs: " then return gap(history.latest, (entry:gsub("%s+$", ""))) end
    local time, bytes = entry:match "^(%S+) (.*)$"
    if time and history:has(name, time, entry) then return end
    if time and opts.follow and history:doubts(time) then read_again(engine, id, opts, history, time, show, gap) end
    if time and history:misses(time) then gap(history.latest) end
    local began = runtime.now()
    wanted, news = show(bytes or entry, name, time) ~= false, true
    if time and wanted then history:add(name, time, entry) end
    if runtime.now() - began > STALLED then history.unsure = history.unsure + DOUBT end
    return wanted
  end)
  if not wanted then return false end
  return ended or nil, why, news
end

--- Calls `show(bytes, stream, time)` for every entry of a container's output: a line with its line break, a piece of a
--- long line, or the rest after the last line break. `show` returns false to end it. Returns at the end of the output,
--- or, with `follow`, of the container; after a break of the connection it continues where it was.
---@param engine table
---@param id string
---@param opts { follow?: boolean, tail?: string, since?: string, tty?: boolean }
---@param show fun(bytes: string, stream: "stdout"|"stderr", time?: string): false?  time: RFC 3339, nanoseconds
---@param on_gap fun(text: string)  called once, if entries may be missing because the engine rotated its log meanwhile
---@return true? ok
---@return table? err
function M.each(engine, id, opts, show, on_gap)
  local history, began = new_history(), moment(timestamp.format())
  local now, has_ended = { follow = opts.follow, tail = opts.tail, since = opts.since, tty = opts.tty }, false
  local failures, reported = 0, false
  local function gap(after, why)
    history.unsure = -math.huge  -- reported once; after that nothing is read again
    if not reported then on_gap(LOST:format(after or "its start", why or "it rotates faster than it can be read")) end
    reported = true
  end
  while true do
    local ended, why, news = read(engine, id, now, history, show, gap)
    failures = (ended or news) and 0 or failures + 1
    if ended == false then return true end
    if not opts.follow then return ended, why end
    if ended and now.follow then
      now.follow, has_ended = false, true  -- a stream that follows lacks an unfinished line; a second reading has it
    else
      local there, running, problem = inspect(engine, id)
      if not there and has_ended then return true end
      if not there then return nil, problem or why end
      if ended and not running then return true end  -- otherwise the engine ended the stream
      if failures >= TRIES and not running then return nil, why end
      if failures > 0 then runtime.sleep(math.min(0.1 * 2 ^ failures, 2)) end
      now.follow, has_ended = running, not running
      if ended then runtime.sleep(0.5) end
    end
    history:rewind()
    local last = history:since()
    if last or now.tail == "0" then now.since = last or began end
    now.tail = nil
  end
end

return M
