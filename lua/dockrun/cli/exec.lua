local dockrun = require "dockrun"
local inventory = require "dockrun.driver.inventory"
local output = require "dockrun.cli.output"
local uv = require "luv"

-- The one running task that JOB/TASK stands for.
local function find(engine, target)
  local job, task = target:match "^([^/]+)/(.+)$"
  job = job or target
  local records, err = inventory.list(engine, job, task)
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
local function resize(engine, id, tty)
  for i = 1, 10 do
    local columns, rows = tty:get_winsize()
    if not columns or engine:exec_resize(id, { w = columns, h = rows }) then return end
    dockrun.sleep(0.02 * i)
  end
end

-- The terminal, byte by byte as it is typed, for as long as the command runs.
local function raw_terminal(engine, id)
  local tty, signal, changes = assert(uv.new_tty(0, true)), uv.new_signal(), dockrun.queue()
  signal:start("sigwinch", function() changes:push(true) end)
  tty:set_mode(2)  -- UV_TTY_MODE_IO: nothing is added to what the command writes either
  changes:push(true)
  -- One size after the other: of two at once, the engine may take the later one first.
  local resizing = dockrun.spawn(function()
    while changes:pop() do resize(engine, id, tty) end
  end)
  return tty, setmetatable({}, { __close = function()
    resizing:cancel()
    signal:close()
    tty:set_mode(0)
    tty:close()
  end })
end

local function plain_input()
  if uv.guess_handle(0) == "file" then return nil end
  local pipe = uv.new_pipe()
  pipe:open(0)
  return pipe, setmetatable({}, { __close = function() pipe:close() end })
end

-- Our stdin becomes the command's, until it ends.
local function forward(stream, input)
  if not input then
    for text in function() return io.read(65536) end do
      if not stream:write(text) then return end
    end
    stream:shutdown()
    return
  end
  local pieces = dockrun.queue()
  input:read_start(function(_, data) pieces:push(data or false) end)
  while true do
    local data = pieces:pop()
    if not data then break end
    if not stream:write(data) then return end
  end
  stream:shutdown()
end

-- What the engine says, as if the command had written it, where it cannot start the command.
local NOT_STARTED = "^OCI runtime exec failed: "

-- Shows what the command writes, or keeps it for --json. Gives back why the command was not started, or why the stream broke.
local function show(engine, id, stream, kept)
  while true do
    local text, which = stream:read()
    if text == nil then return nil, which end
    local made = text:find(NOT_STARTED) and engine:exec_inspect(id)
    if made and not made.Running and made.Pid == 0 then return (text:gsub("%s+$", "")) end
    if kept then
      kept[which or "stdout"] = (kept[which or "stdout"] or "") .. text
    else
      local file = which == "stderr" and io.stderr or io.stdout
      file:write(text)
      file:flush()
    end
  end
end

return {
  summary = "Run a command in a task's container.",
  define = function(command)
    command:flag("-i --interactive", "Give it this process's input.")
    command:flag("-t --tty", "Give it a terminal.")
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
    local input, closer
    if args.tty then
      input, closer = raw_terminal(engine, made.Id)
    elseif args.interactive then
      input, closer = plain_input()
    end
    local _ <close> = closer
    local forwarding = args.interactive and dockrun.spawn(forward, stream, input)
    local kept = args.json and {}
    local refused
    refused, err = show(engine, made.Id, stream, kept)
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
      output.json { exit_code = ended.ExitCode, stdout = kept.stdout or "", stderr = kept.stderr or "" }
    end
    return ended.ExitCode
  end,
}
