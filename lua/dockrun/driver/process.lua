--- Starts programs of this host: ssh, credential helpers. SIGCHLD belongs to the host program, which may handle, block or
--- ignore it.
local core = require "dockrun.core.process"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local MOST_INPUT = 4096  -- bytes: a pipe takes so many at once
local POLL = 20          -- milliseconds between two checks of a program, on a kernel before 5.3

---@class Process
---@field kill fun(self: Process)  by SIGKILL; no effect if it has ended
---@field unref fun(self: Process) the loop does not wait for its end

--- Starts a program. Raises nothing.
---@param words string[]  the program, by its path or its name in PATH, and its arguments
---@param opts { stdin?: integer, stdout?: integer, stderr?: integer, session?: boolean }  descriptors above 2, which stay
---  the caller's; nil is /dev/null. session: in a session of its own
---@param on_end fun(code?: integer)  as a shell gives it; nil: unknown, because the host program has collected it or ignores SIGCHLD
---@return Process? process
---@return table? err  kind "system"
function M.start(words, opts, on_end)
  local process, err = core.start(words, opts.stdin, opts.stdout, opts.stderr, opts.session)
  if not process then return nil, err end
  local fd = process:fd()
  local watcher = assert(fd and uv.new_poll(fd) or uv.new_timer())
  local function poll()
    local ended, code = process:collect()
    if not ended then return end
    watcher:close()
    process:close()
    on_end(code)
  end
  if fd then watcher:start("r", poll) else watcher:start(0, POLL, poll) end
  return {
    kill = function() process:kill() end,
    unref = function()
      if not watcher:is_closing() then watcher:unref() end
    end,
  }
end

local function close_all(fds)
  for name, fd in pairs(fds) do
    uv.fs_close(fd)
    fds[name] = nil
  end
end

--- Runs a program to its end. It is killed if its caller is cancelled meanwhile.
---@param words string[]    see start
---@param input string      at most 4096 bytes
---@param timeout number    seconds
---@return { output: string, code?: integer }? result  its stdout; code: see start
---@return table? err       kind "system", "timeout"
function M.run(words, input, timeout)
  assert(#input <= MOST_INPUT, "the input of a program is too long")
  local fds <close> = setmetatable({}, { __close = close_all })
  for _, name in ipairs { "stdin", "stdout" } do
    local pipe, why = uv.pipe()
    if not pipe then return nil, runtime.error("system", "cannot make a pipe: " .. why) end
    fds[name .. "_read"], fds[name .. "_write"] = pipe.read, pipe.write
  end
  uv.fs_write(fds.stdin_write, input)  -- before the program starts: if it ended without reading, SIGPIPE would be raised
  local news, parts, code = queue.new(), {}, nil
  local process, err = M.start(words, { stdin = fds.stdin_read, stdout = fds.stdout_write }, function(ended_with)
    code = ended_with
    news:push "ended"
  end)
  if not process then return nil, err end
  local output = uv.new_pipe()
  local _ <close> = setmetatable({}, { __close = function()
    output:close()
    process:kill()
    process:unref()
  end })
  output:open(fds.stdout_read)
  fds.stdout_read = nil
  close_all(fds)  -- the program has its own copies
  output:read_start(function(_, data)
    if data then parts[#parts + 1] = data else news:push "read" end
  end)
  local deadline = runtime.now() + timeout
  for _ = 1, 2 do
    if not news:pop(math.max(deadline - runtime.now(), 0)) then
      return nil, runtime.error("timeout", ("no answer within %g s"):format(timeout))
    end
  end
  return { output = table.concat(parts), code = code }
end

return M
