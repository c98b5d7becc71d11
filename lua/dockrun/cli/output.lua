-- How the commands speak: results on stdout, diagnostics with a level on stderr, colour for terminals alone.
local json = require "dockrun.core.json"
local uv = require "luv"

local M = {}

---@param fd integer
---@return boolean
function M.is_terminal(fd) return uv.guess_handle(fd) == "tty" end

--- Whether text for this descriptor may have colours (no-color.org).
---@param fd integer
---@return boolean
function M.has_color(fd) return M.is_terminal(fd) and (os.getenv "NO_COLOR" or "") == "" and os.getenv "TERM" ~= "dumb" end

--- Columns of the terminal, 80 where there is none.
---@return integer
function M.width()
  local columns = tonumber(os.getenv "COLUMNS")
  if not columns and M.is_terminal(1) then
    local tty = uv.new_tty(1, false)
    if tty then
      columns = tty:get_winsize()
      tty:close()
    end
  end
  return columns and columns > 20 and math.floor(columns) or 80
end

---@param text string
---@param code string  SGR parameters, such as "31"
---@param fd? integer  1 by default
function M.paint(text, code, fd) return M.has_color(fd or 1) and ("\27[%sm%s\27[0m"):format(code, text) or text end

--- Whether a result could not be written, and that is told.
M.lost = false

--- A result. Once nobody reads them any more, results are dropped: tasks do not end because a pager did.
---@param text string
function M.result(text)
  local ok, why = io.stdout:write(text, "\n")
  if ok then ok, why = io.stdout:flush() end
  if ok or M.lost or why:find "Broken pipe" then return end
  M.lost = true
  M.say("error", "cannot write the results: " .. why)
end

-- JSON is UTF-8 (RFC 8259); what the engine or a container has said may be anything.
local function to_utf8(text)
  local parts, from = {}, 1
  local _, bad = utf8.len(text)
  while bad do
    parts[#parts + 1] = text:sub(from, bad - 1)
    from = bad + 1
    _, bad = utf8.len(text, from)
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts, "\u{fffd}")
end

---@param value any  one JSON document, one line
function M.json(value) M.result(to_utf8(json.encode(value))) end

local colors = { error = "31", warn = "33", info = "36", debug = "90" }
M.verbose = false

---@param level "error"|"warn"|"info"|"debug"
---@param text string
function M.say(level, text)
  if level == "debug" and not M.verbose then return end
  for line in (text .. "\n"):gmatch "(.-)\n" do
    io.stderr:write("dockrun: ", M.paint(level, colors[level], 2), ": ", line, "\n")
  end
end

local SGR = "\27%[[%d;]*m"

-- Columns that a text takes on a terminal, its colours aside.
local function width_of(text)
  text = text:gsub(SGR, "")
  return utf8.len(text) or #text
end

-- A line as far as the terminal goes; its colours end where they would have.
local function cut(line, limit)
  if width_of(line) <= limit then return line end
  local left, done = limit - 1, false
  return (line:gsub("\27?[^\27]*", function(piece)
    local color = piece:match("^" .. SGR) or ""
    if done then return color end
    local text = piece:sub(#color + 1)
    local width = width_of(text)
    if width <= left then
      left = left - width
      return nil
    end
    done = true
    return color .. text:sub(1, (utf8.offset(text, left + 1) or 1) - 1) .. "…"
  end))
end

--- Rows as a table with a head, columns as wide as they must be; what does not fit on the terminal is cut.
---@param head string[]
---@param rows string[][]
function M.columns(head, rows)
  local widths = {}
  for _, row in ipairs { head, table.unpack(rows) } do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width_of(cell)) end
  end
  local limit = M.is_terminal(1) and M.width() or math.huge
  for _, row in ipairs { head, table.unpack(rows) } do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = i < #row and cell .. (" "):rep(widths[i] - width_of(cell)) or cell end
    M.result(cut(table.concat(cells, "  "):gsub("%s+$", ""), limit))
  end
end

--- How much of a matter an event is.
M.levels = {
  received = "debug", setup = "debug", pulling = "info", pulled = "debug", created = "debug", started = "info",
  exited = "info", killing = "info", killed = "debug", removed = "debug", image_removed = "debug", oom = "warn",
  hook_failed = "error", failed = "error", restarting = "warn", not_restarting = "warn", healthy = "info", unhealthy = "warn",
  updated = "info", reattached = "info",
}

--- An event for people, without its time.
---@param event table
---@return string
function M.event(event)
  local parts = { event.event }
  if event.ports then parts[#parts + 1] = M.ports(event.ports) end
  if event.message then parts[#parts + 1] = event.message end
  return ("%s.%s.%s: %s"):format(event.job, event.group, event.task, table.concat(parts, "  "))
end

--- Says an event on stderr, at its level.
---@param event table
function M.say_event(event)
  M.say(M.levels[event.event] or "info", M.event(event))
  if event.traceback then M.say("debug", event.traceback) end
end

--- Seconds for people: 42s, 3m10s, 2h05m, 4d03h.
---@param seconds number
---@return string
function M.duration(seconds)
  seconds = math.floor(math.max(seconds, 0))
  if seconds < 60 then return ("%ds"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(seconds // 60, seconds % 60) end
  if seconds < 86400 then return ("%dh%02dm"):format(seconds // 3600, seconds % 3600 // 60) end
  return ("%dd%02dh"):format(seconds // 86400, seconds % 86400 // 3600)
end

--- Bytes for people: 512B, 1.5M; "-" for nothing.
---@param bytes? number
---@return string
function M.size(bytes)
  if not bytes then return "-" end
  local units, i = { "B", "K", "M", "G", "T" }, 1
  while bytes >= 1024 and i < #units do
    bytes, i = bytes / 1024, i + 1
  end
  return (i == 1 and "%d%s" or "%.1f%s"):format(bytes, units[i])
end

--- Ports for people: 192.0.2.1:23456->6379.
---@param ports PortMapping[]
---@return string
function M.ports(ports)
  local texts = {}
  for i, port in ipairs(ports) do texts[i] = ("%s:%d->%d"):format(port.ip, port.host_port, port.container_port) end
  return table.concat(texts, ", ")
end

return M
