-- Calls that do no harm when they are made twice, made again while the engine cannot be heard.
local runtime = require "dockrun.core.runtime"

local M = {}

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2  -- seconds
local PATIENCE = 10                           -- seconds, after which what comes is final

--- Whether an error says nothing of what was asked: the engine is away, in trouble, or its answer did not come whole.
---@param err any
---@return boolean
function M.may_pass(err)
  if type(err) ~= "table" then return false end
  return err.kind == "unreachable" or err.kind == "timeout" or err.kind == "protocol" or (err.status or 0) >= 500
end

--- Makes a call, and makes it again as long as its error may pass and there is patience.
---@param call fun(): any, table?
---@return any value
---@return table? err
function M.again(call)
  local deadline, pause = runtime.now() + PATIENCE, SHORTEST_PAUSE
  while true do
    local value, err = call()
    if value or not M.may_pass(err) or runtime.now() + pause > deadline then return value, err end
    runtime.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

return M
