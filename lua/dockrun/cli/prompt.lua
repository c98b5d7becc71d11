-- The prompt: reads and runs a line of Lua at a time, with the globals `dockrun` and `engine`.
local dockrun = require "dockrun"
local standard = require "dockrun.core.standard"
local uv = require "luv"

-- Reads a line while fibers run: readline is called only if the terminal has input.
---@return fun(prompt: string): string?  nil at the end of the input; raises the signal that interrupts it
local function reader()
  local ok, readline = pcall(require, "readline")
  if not ok then
    return function(prompt)
      io.write(prompt)
      io.flush()
      return io.read()
    end
  end
  local lines = dockrun.queue()
  -- A descriptor of its own: polling makes it non-blocking, and the shell and stdout share the one that we were given.
  local terminal = uv.new_poll(assert(uv.fs_open("/proc/self/fd/0", "r", 0)))
  local function got(line)
    readline.handler_remove()
    if line and line:find "%S" then readline.add_history(line) end
    lines:push(line or false)
  end
  return function(prompt)
    readline.handler_install(prompt, got)
    terminal:start("r", readline.read_char)
    local read, line = pcall(lines.pop, lines)
    terminal:stop()
    if read then return line or nil end
    readline.handler_remove()
    print()
    error(line, 0)
  end
end

-- Reads until the chunk is complete: the error of an incomplete one ends in "<eof>", as in lua.c.
local function read_chunk(read)
  local text = read "> "
  if not text then return nil end
  local expression = load("return " .. text, "=stdin")
  if expression then return expression end
  while true do
    local chunk, why = load(text, "=stdin")
    if chunk then return chunk end
    if not why:find "<eof>$" then return false, why end
    local more = read ">> "
    if not more then return false, why end
    text = text .. "\n" .. more
  end
end

-- Ctrl-C ends the chunk that runs, or the line; any other signal ends the prompt.
local function is_ctrl_c(err) return type(err) == "table" and err.kind == "cancelled" and err.signal == "SIGINT" end

local function show(ok, ...)
  if ok then
    if select("#", ...) > 0 then print(...) end
    return
  end
  local err = ...
  if type(err) == "table" and err.kind == "cancelled" and err.signal and not is_ctrl_c(err) then error(err, 0) end
  io.stderr:write(standard.safe(tostring(err), "text"), "\n")
end

---@return integer exit_code
return function()
  print(("dockrun %s, %s. Try engine:version() or dockrun.sleep(1); Ctrl-D ends."):format(dockrun.version, _VERSION))
  _G.dockrun = dockrun
  _G.engine = dockrun.connect()
  local read = reader()
  while true do
    local ok, chunk, why = pcall(read_chunk, read)
    if not ok and not is_ctrl_c(chunk) then error(chunk, 0) end
    if ok and chunk == nil then
      print()
      return 0
    end
    if ok and not chunk then
      show(false, why)
    elseif ok then
      show(xpcall(chunk, debug.traceback))
    end
  end
end
