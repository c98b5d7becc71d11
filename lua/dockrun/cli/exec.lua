local containers = require "dockrun.cli.containers"
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"
local standard = require "dockrun.core.standard"
local uv = require "luv"

-- The one running task that JOB/TASK stands for.
local function find(engine, target)
  local job, task = target:match "^([^/]+)/(.+)$"
  job = job or target
  local records, err = containers(engine, job, task)
  if not records then return nil, err end
  local running, names, named = {}, {}, {}
  for _, record in ipairs(records) do
    if record.state == "running" then
      running[#running + 1] = record
      if not named[record.task] then names[#names + 1] = job .. "/" .. record.task end
      named[record.task] = true
    end
  end
  if #running == 0 then return nil, dockrun.error("failed", ("nothing runs as '%s' on this engine"):format(target)) end
  if #names > 1 then
    return nil, dockrun.error("usage", ("'%s' has several tasks, say which: %s"):format(target, table.concat(names, ", ")))
  end
  return running[1]  -- of several allocations of one task, the first
end

-- Tells the engine the terminal's size. It refuses one until the command's process is there.
local function resize(engine, id)
  for i = 1, 10 do
    local columns, rows = standard.size(0)
    if not columns or engine:exec_resize(id, { w = columns, h = rows }) then return end
    dockrun.sleep(0.02 * i)
  end
end

-- The terminal, byte by byte as it is typed, for as long as the command runs.
local function raw_terminal(engine, id)
  local signal, changes, raw = uv.new_signal(), dockrun.queue(), assert(standard.raw())
  signal:start("sigwinch", function() changes:push(true) end)
  changes:push(true)
  -- One size after the other: of two at once, the engine may take the later one first.
  local resizing = dockrun.spawn(function()
    while changes:pop() do resize(engine, id) end
  end)
  return setmetatable({}, { __close = function()
    resizing:cancel()
    signal:close()
    raw:close()
  end })
end

-- Our stdin becomes the command's, until it ends.
local function forward(stream)
  while true do
    local bytes, err = standard.read()
    if err then output.say("error", tostring(err)) end
    if not bytes then break end
    if not stream:write(bytes) then return end
  end
  stream:shutdown()
end

-- What the engine says, as if the command had written it, where it cannot start the command.
local NOT_STARTED = "^OCI runtime exec failed: "

-- Calls `found` with what the command writes. Gives back why the command was not started, or why the stream broke.
local function show(engine, id, stream, found)
  while true do
    local text, which = stream:read()
    if text == nil then return nil, which end
    local made = text:find(NOT_STARTED) and engine:exec_inspect(id)
    if made and not made.Running and made.Pid == 0 then return (text:gsub("%s+$", "")) end
    local ok, err = found(which, text)
    if not ok then return nil, err end
  end
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
    command:flag("-i --interactive", "Give it this process's input.")
    command:flag("-t --tty", "Give it a terminal.")
    command:flag("--plain", "Leave out control sequences of what it writes.")
    command:argument("target", "JOB/TASK, or JOB where it has one task.")
    command:argument("cmd", "The command and its arguments, after `--`."):args "+":target "words"
  end,
  run = function(args)
    if args.tty and not (output.is_terminal(0) and output.is_terminal(1)) then
      return nil, dockrun.error("usage", "-t needs a terminal as input and output")
    end
    local engine, err = dockrun.connect()
    if not engine then return nil, err end
    local record
    record, err = find(engine, args.target)
    if not record then return nil, err end
    local made
    made, err = engine:exec_create(record.container_id, { body = {
      Cmd = args.words, AttachStdin = args.interactive or false, AttachStdout = true, AttachStderr = true, Tty = args.tty or false,
    } })
    if not made then return nil, err end
    local stream
    stream, err = engine:exec_start(made.Id, { body = { Detach = false, Tty = args.tty or false }, tty = args.tty or nil })
    if not stream then return nil, err end
    local _ <close> = stream
    standard.end_with_reader "write"
    local _ <close> = args.tty and raw_terminal(engine, made.Id) or nil
    local forwarding = args.interactive and dockrun.spawn(forward, stream)
    local kept = args.json and { stdout = {}, stderr = {} }
    local refused
    refused, err = show(engine, made.Id, stream, kept and keeper(kept) or shower(args.plain))
    if forwarding then forwarding:cancel() end
    if err then return nil, err end
    if refused then
      output.say("error", refused)
      return (refused:find "not found" or refused:find "no such file") and 127 or 126
    end
    local ended
    ended, err = engine:exec_inspect(made.Id)
    if not ended then return nil, err end
    if kept then
      output.json { exit_code = ended.ExitCode, stdout = table.concat(kept.stdout), stderr = table.concat(kept.stderr) }
    end
    return ended.ExitCode
  end,
}
