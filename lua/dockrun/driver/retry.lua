-- Calls that do no harm when they are made twice, made again while the engine cannot be heard.
local runtime = require "dockrun.core.runtime"

local M = {}

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2  -- seconds
local PATIENCE = 10                           -- seconds, after which what comes is final

local unheard = { unreachable = true, timeout = true, protocol = true }

local NOT_CONNECTED = 7 -- libcurl's code: nobody listens, so nothing was asked

--- Whether an error says nothing of what was asked: the engine's answer did not come, or not whole. It may have been done.
---@param err any
---@return boolean
function M.is_unheard(err) return type(err) == "table" and err.code ~= NOT_CONNECTED and unheard[err.kind] or false end

--- Whether another try may do better: the engine was not heard, or is in trouble.
---@param err any
---@return boolean
function M.may_pass(err)
  return type(err) == "table" and (unheard[err.kind] or err.kind == "engine" and (err.status or 0) >= 500) or false
end

--- Makes a call, and makes it again as long as its error may pass and there is patience.
---@param call fun(): any, table?
---@param may_pass? fun(err: table): boolean  M.may_pass
---@return any value
---@return table? err
function M.again(call, may_pass)
  local deadline, pause = runtime.now() + PATIENCE, SHORTEST_PAUSE
  while true do
    local value, err = call()
    if value or not (may_pass or M.may_pass)(err) or runtime.now() + pause > deadline then return value, err end
    runtime.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

return M
