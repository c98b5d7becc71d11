--- Calls of the engine that may be made twice, made again while the engine does not answer. Which errors a retry may mend is
--- decided here; a call that must not be made twice passes its own test.
local runtime = require "dockrun.core.runtime"

local M = {}

local SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2  -- seconds
local PATIENCE = 10                           -- seconds, after which an error is final

local unanswered = { unreachable = true, timeout = true, protocol = true }

local COULDNT_CONNECT = 7  -- libcurl's CURLE_COULDNT_CONNECT: the request was not sent

--- Whether an error leaves open what the engine did: no whole answer came, but the request may have been carried out.
---@param err any
---@return boolean
function M.is_unanswered(err)
  return type(err) == "table" and err.code ~= COULDNT_CONNECT and unanswered[err.kind] or false
end

--- Whether another attempt may succeed: the engine did not answer, or failed itself (status 5xx).
---@param err any
---@return boolean
function M.is_transient(err)
  return type(err) == "table" and (unanswered[err.kind] or err.kind == "engine" and (err.status or 0) >= 500) or false
end

--- Makes a call, and makes it again with growing pauses as long as its error is transient, for 10 seconds at most.
---@param call fun(): any, table?
---@param is_transient? fun(err: table): boolean  M.is_transient
---@return any value
---@return table? err
function M.call(call, is_transient)
  local deadline, pause = runtime.now() + PATIENCE, SHORTEST_PAUSE
  while true do
    local value, err = call()
    if value or not (is_transient or M.is_transient)(err) or runtime.now() + pause > deadline then return value, err end
    runtime.sleep(pause)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

return M
