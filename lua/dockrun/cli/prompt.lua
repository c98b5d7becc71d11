-- The prompt: a line of Lua at a time, on the runtime, with `dockrun` and `engine` at hand.
local dockrun = require "dockrun"

local function reader()
  local ok, readline = pcall(require, "readline")
  if not ok then
    return function(prompt)
      io.write(prompt)
      io.flush()
      return io.read()
    end
  end
  return function(prompt) return (readline.readline(prompt)) end
end

-- An incomplete chunk ends in "<eof>", as in lua.c.
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

-- One turn: reads, runs, shows. True at the end of the input.
local function turn(read)
  local chunk, why = read_chunk(read)
  if chunk == nil then return true end
  local results = chunk and table.pack(xpcall(chunk, debug.traceback)) or { false, why, n = 2 }
  if not results[1] then
    io.stderr:write(tostring(results[2]), "\n")
  elseif results.n > 1 then
    print(table.unpack(results, 2, results.n))
  end
end

---@return integer exit_code
return function()
  print(("dockrun %s, %s. Try engine:version() or dockrun.sleep(1); Ctrl-D ends."):format(dockrun.version, _VERSION))
  _G.dockrun = dockrun
  _G.engine = dockrun.connect()
  local read = reader()
  while true do
    local ok, ended = pcall(turn, read)
    if not ok then  -- Ctrl-C: what was being typed is thrown away
      if type(ended) ~= "table" or ended.signal ~= "SIGINT" then error(ended, 0) end
      io.stderr:write(tostring(ended), "\n")
    elseif ended then
      print()
      return 0
    end
  end
end
