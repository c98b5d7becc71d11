local dockrun = require "dockrun"
local execs = require "dockrun.driver.exec"
local output = require "dockrun.output"
local standard = require "dockrun.core.standard"
local target = require "dockrun.agent.target"
local uv = require "luv"

-- Gives the command our terminal: each byte as it is typed, and its size.
local function raw_terminal(exec)
  local signal, changes, raw = uv.new_signal(), dockrun.queue(), assert(standard.raw())
  signal:start("sigwinch", function() changes:push(true) end)
  changes:push(true)
  -- One size after the other: of two at once, the engine may take the later one first.
  local resizing = dockrun.spawn(function()
    while changes:pop() do
      local columns, rows = standard.size(0)
      if columns then exec:resize(columns, rows) end
    end
  end)
  return setmetatable({}, { __close = function()
    resizing:cancel()
    signal:close()
    raw:close()
  end })
end

-- Sends our stdin to the command, until it ends.
local function forward(stream)
  while true do
    local bytes, err = standard.read()
    if err then output.say("error", tostring(err)) end
    if not bytes then break end
    if not stream:write(bytes) then return end
  end
  stream:shutdown()
end

-- Keeps what the command writes, for --json.
local function keeper(kept)
  return function(which, text)
    table.insert(kept[which == "stderr" and "stderr" or "stdout"], text)
    return true
  end
end

local function shower(plain)
  return function(which, text) return output.pour(which == "stderr" and 2 or 1, plain and output.plain(text) or text) end
end

return {
  summary = "Run a command in a task's container.",
  define = function(command)
    command:flag("-i --interactive", "Give the command this process's input.")
    command:flag("-t --tty", "Give the command a terminal.")
    command:flag("--plain", "Leave control sequences out of what the command writes.")
    command:argument("target", "JOB/TASK, or JOB if it has one task.")
    command:argument("cmd", "The command and its arguments, after `--`."):args "+":target "words"
  end,
  run = function(args)
    if args.tty and not (output.is_terminal(0) and output.is_terminal(1)) then
      return nil, dockrun.error("usage", "-t needs a terminal as input and output")
    end
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local record
    record, err = target.one(engine, dockrun.options, args.target)
    if not record then return nil, err end
    local exec <close>, problem = execs.start(engine, record.container_id, {
      command = args.words, interactive = args.interactive, tty = args.tty,
    })
    if not exec then return nil, problem end
    standard.end_with_reader "write"
    local _ <close> = args.tty and raw_terminal(exec) or nil
    local forwarding = args.interactive and dockrun.spawn(forward, exec.stream)
    local kept = args.json and { stdout = {}, stderr = {} }
    local refused
    refused, err = exec:each(kept and keeper(kept) or shower(args.plain))
    if forwarding then forwarding:cancel() end
    if err then return nil, err end
    if refused then
      output.say("error", refused)
      return (refused:find "not found" or refused:find "no such file") and 127 or 126
    end
    local code
    code, err = exec:exit_code()
    if not code then return nil, err or dockrun.error("protocol", "the command's output ended before the command") end
    if kept then
      output.json { exit_code = code, stdout = table.concat(kept.stdout), stderr = table.concat(kept.stderr) }
    end
    return code
  end,
}
