--- Prints for commands and scripts: results on stdout, diagnostics with a level on stderr, colours only on a terminal. Text
--- from others (tasks, the engine) cannot send control sequences to the terminal.
local json = require "dockrun.core.json"
local standard = require "dockrun.core.standard"
local uv = require "luv"

local M = {}

---@param fd integer
---@return boolean
function M.is_terminal(fd) return uv.guess_handle(fd) == "tty" end

--- Whether text for this descriptor may have colours (https://no-color.org).
---@param fd integer
---@return boolean
function M.has_color(fd) return M.is_terminal(fd) and (os.getenv "NO_COLOR" or "") == "" and os.getenv "TERM" ~= "dumb" end

--- Columns of the terminal, or 80 without one.
---@return integer
function M.width()
  local columns = tonumber(os.getenv "COLUMNS") or standard.size(1)
  return columns and columns > 20 and math.floor(columns) or 80
end

-- ---- text from others ------------------------------------------------------------------------

-- Marks our colours until the text is written. Others cannot know it, so every other escape sequence is theirs.
local MARK = ("\1%s:"):format(uv.random(16):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
local COLOR = MARK .. "([%d;]+)m"

--- Text in a colour, for `result`, `say` and `columns`.
---@param text string
---@param code string  SGR parameters, such as "31"
---@param fd? integer  1 by default
function M.paint(text, code, fd) return M.has_color(fd or 1) and ("%s%sm%s%s0m"):format(MARK, code, text, MARK) or text end

-- Makes the text between our colours safe, and replaces each of our colours by `color` (a format with its code).
local function make_safe(text, how, color)
  local parts, from = {}, 1
  for start, code, stop in text:gmatch("()" .. COLOR .. "()") do
    parts[#parts + 1] = standard.safe(text:sub(from, start - 1), how)
    parts[#parts + 1] = color:format(code)
    from = stop
  end
  parts[#parts + 1] = standard.safe(text:sub(from), how)
  return table.concat(parts)
end

--- Text that is safe to print: our colours become control sequences; everything else that a terminal would act on (control
--- characters, marks of direction, invalid UTF-8) becomes an escape. "a\27[31m" -> "a\\x1b[31m".
---@param text string
---@param how? "line"|"text"  text: line breaks and tabs stay
---@return string
function M.safe(text, how) return make_safe(text, how, "\27[%sm") end

--- Removes escape sequences (ECMA-48) and control characters.
---@param text string
---@return string
function M.plain(text)
  text = text:gsub("\27%[[0-?]*[ -/]*[@-~]", ""):gsub("\27[%]PX^_][^\7\27\n]*\27?\\?", ""):gsub("\27[ -/]*[0-~]", "")
  return standard.safe(text, "strip")
end

-- ---- writing ----------------------------------------------------------------------------------

-- Whether stdout and stderr are the same pipe or file, or both are a terminal.
local function is_one_place()
  if M.is_terminal(1) and M.is_terminal(2) then return true end
  local out, err = uv.fs_fstat(1), uv.fs_fstat(2)
  return out and err and out.ino == err.ino and out.dev == err.dev
end

local place = { 1, is_one_place() and 1 or 2 }
local unfinished = {}  -- by place: the source of a line without an end

-- Ends the unfinished line of a task before anything else is written.
local function end_line(fd)
  if not unfinished[place[fd]] then return "" end
  unfinished[place[fd]] = nil
  return "\n"
end

--- Prints a result. If its reader is gone, it is dropped or the command ends: see standard.end_with_reader.
---@param text string
function M.result(text) standard.write(1, end_line(1) .. M.safe(text, "text") .. "\n") end

--- Writes bytes unchanged, and waits for a slow reader.
---@param fd integer
---@param bytes string
---@return true? ok
---@return table? err
function M.pour(fd, bytes)
  local ok, err = standard.write(fd, bytes)
  if ok then ok, err = standard.wait(fd) end
  return ok, err
end

--- The output of a task for `pour`: its bytes, with a prefix before each line. Ends the unfinished line of another task.
---@param fd integer
---@param source any      the task
---@param prefix string   "" for none
---@param bytes string
---@return string
function M.lines(fd, source, prefix, bytes)
  prefix = M.safe(prefix)
  local at = place[fd]
  local parts = { unfinished[at] and unfinished[at] ~= source and prefix ~= "" and "\n" or "" }
  local open = unfinished[at] == source
  for line in bytes:gmatch "[^\n]*\n?" do
    if line == "" then break end
    parts[#parts + 1] = (open and "" or prefix) .. line
    open = line:sub(-1) ~= "\n"
  end
  unfinished[at] = open and source or nil
  return table.concat(parts)
end

-- JSON is UTF-8 (RFC 8259), but text of the engine or a container may be any bytes.
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

--- Prints a JSON document on one line.
---@param value any
function M.json(value) standard.write(1, to_utf8(json.encode(value)) .. "\n") end

local colors = { error = "31", warn = "33", info = "36", debug = "90" }
M.verbose = false

--- Prints a diagnostic on stderr: "dockrun: error: …", each line with its level. "debug" only with --verbose.
---@param level "error"|"warn"|"info"|"debug"
---@param text string
function M.say(level, text)
  if level == "debug" and not M.verbose then return end
  local lines = { end_line(2) }
  for line in (text .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = M.safe(("dockrun: %s: %s\n"):format(M.paint(level, colors[level], 2), line), "text")
  end
  standard.write(2, table.concat(lines))
end

-- The columns of a text on a terminal; colours take none.
local function width_of(text)
  text = text:gsub(COLOR, "")
  return utf8.len(text) or #text
end

-- Cuts a line at the terminal's width, and keeps the ends of its colours.
local function cut(line, limit)
  if width_of(line) <= limit then return line end
  local left, done = limit - 1, false
  return (line:gsub("\1?[^\1]*", function(piece)
    local color = piece:match("^" .. MARK .. "[%d;]+m") or ""
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

--- Prints rows as a table; on a terminal, lines that are too long are cut.
---@param head string[]  the titles of the columns
---@param rows string[][]
function M.columns(head, rows)
  local widths, lines = {}, { head }
  for i, row in ipairs(rows) do
    lines[i + 1] = {}
    for j, cell in ipairs(row) do lines[i + 1][j] = make_safe(cell, "line", MARK .. "%sm") end
  end
  for _, row in ipairs(lines) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width_of(cell)) end
  end
  local limit = M.is_terminal(1) and M.width() or math.huge
  for _, row in ipairs(lines) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = i < #row and cell .. (" "):rep(widths[i] - width_of(cell)) or cell end
    M.result(cut(table.concat(cells, "  "):gsub("%s+$", ""), limit))
  end
end

--- The level of each event.
M.levels = {
  received = "debug", setup = "debug", pulling = "info", pulled = "debug", created = "debug", started = "info",
  exited = "info", killing = "info", killed = "debug", removed = "debug", image_removed = "debug", oom = "warn",
  hook_failed = "error", failed = "error", restarting = "warn", not_restarting = "warn", healthy = "info", unhealthy = "warn",
  updated = "info", reattached = "info",
}

--- An event as text, without its time: "web.g.server: started  0.0.0.0:8080->80".
---@param event table
---@return string
function M.event(event)
  local parts = { event.event }
  if event.ports then parts[#parts + 1] = M.ports(event.ports) end
  if event.message then parts[#parts + 1] = event.message end
  return ("%s.%s.%s: %s"):format(event.job, event.group, event.task, table.concat(parts, "  "))
end

--- Prints an event on stderr, at its level.
---@param event table
function M.say_event(event)
  M.say(M.levels[event.event] or "info", M.event(event))
  if event.traceback then M.say("debug", event.traceback) end
end

--- Seconds as text: 42s, 3m10s, 2h05m, 4d03h.
---@param seconds number
---@return string
function M.duration(seconds)
  seconds = math.floor(math.max(seconds, 0))
  if seconds < 60 then return ("%ds"):format(seconds) end
  if seconds < 3600 then return ("%dm%02ds"):format(seconds // 60, seconds % 60) end
  if seconds < 86400 then return ("%dh%02dm"):format(seconds // 3600, seconds % 3600 // 60) end
  return ("%dd%02dh"):format(seconds // 86400, seconds % 86400 // 3600)
end

--- Bytes as text: 512B, 1.5M; "-" for nil.
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

--- Ports as text: 192.0.2.1:23456->6379.
---@param ports PortMapping[]
---@return string
function M.ports(ports)
  local texts = {}
  for i, port in ipairs(ports) do texts[i] = ("%s:%d->%d"):format(port.ip, port.host_port, port.container_port) end
  return table.concat(texts, ", ")
end

-- ---- statistics ----------------------------------------------------------------------------

local RESOURCES = { "cpu", "memory", "io" }

local function cell(format, value) return value and format:format(value) or "-" end

-- { cpu = { some = { avg10 = 12.5 } } } -> "12/-/-"
local function pressure(resources)
  if not resources then return "-" end
  local parts = {}
  for i, name in ipairs(RESOURCES) do
    local some = resources[name] and resources[name].some
    parts[i] = cell("%.0f", some and some.avg10)
  end
  return table.concat(parts, "/")
end

--- Prints what containers use: a row each, within 80 columns. PRESSURE is the percentage of the last 10 seconds in which a
--- process waited for CPU, memory and I/O. "-": the kernel does not count it for the container.
---@param title string    of the first column
---@param names string[]  the first column, by row
---@param rows Usage[]    of driver/stats.lua
function M.stats(title, names, rows)
  local cells = {}
  for i, row in ipairs(rows) do
    cells[i] = {
      names[i], cell("%.1f", row.cpu_percent), M.size(row.memory), M.size(row.memory_limit), cell("%d", row.pids),
      cell("%d", row.oom_kills), cell("%.1fs", row.throttled_seconds), pressure(row.pressure),
    }
  end
  M.columns({ title, "CPU%", "MEMORY", "LIMIT", "PIDS", "OOM", "THROTTLED", "PRESSURE" }, cells)
end

return M
