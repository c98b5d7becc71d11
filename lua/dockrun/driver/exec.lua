--- Runs a command in a container that runs.
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Exec
---@field engine table
---@field id string
---@field stream table  of the command: read, write, shutdown
local Exec = {}
Exec.__index = Exec
Exec.__close = function(self) self.stream:close() end

--- Starts a command.
---@param engine table
---@param container_id string
---@param opts { command: string[], interactive?: boolean, tty?: boolean }
---@return Exec? exec  to be closed
---@return table? err
function M.start(engine, container_id, opts)
  local tty = opts.tty or false
  local made, err = engine:exec_create(container_id, { body = {
    Cmd = opts.command, AttachStdin = opts.interactive or false, AttachStdout = true, AttachStderr = true, Tty = tty,
  } })
  if not made then return nil, err end
  local stream
  stream, err = engine:exec_start(made.Id, { body = { Detach = false, Tty = tty }, tty = tty or nil })
  if not stream then return nil, err end
  return setmetatable({ engine = engine, id = made.Id, stream = stream }, Exec)
end

local RESIZES = 10  -- attempts: the engine refuses a size until the command's process exists

--- Tells the engine the terminal's size.
---@param columns integer
---@param rows integer
function Exec:resize(columns, rows)
  for i = 1, RESIZES do
    if self.engine:exec_resize(self.id, { w = columns, h = rows }) then return end
    runtime.sleep(0.02 * i)
  end
end

-- The engine writes this in the command's own output if it cannot start the command.
local NOT_STARTED = "^OCI runtime exec failed: "

--- Calls `show` with what the command writes, until the command or `show` ends it.
---@param show fun(stream: string, bytes: string): true?, table?
---@return string? refused  why the engine could not start the command
---@return table? err       the stream broke, or the error of `show`
function Exec:each(show)
  while true do
    local bytes, which = self.stream:read()
    if bytes == nil then return nil, which end
    local made = bytes:find(NOT_STARTED) and self.engine:exec_inspect(self.id)
    if made and not made.Running and made.Pid == 0 then return (bytes:gsub("%s+$", "")) end
    local ok, err = show(which, bytes)
    if not ok then return nil, err end
  end
end

--- The exit code of a command that has ended.
---@return integer? code  nil without an error if it has not ended
---@return table? err
function Exec:exit_code()
  local made, err = self.engine:exec_inspect(self.id)
  if not made then return nil, err end
  return not made.Running and made.ExitCode or nil
end

return M
