-- Like pcall, but cancellation still propagates. For background loops that must survive a single failure, such as memory
-- that was short for a moment.
local function outcome(ok, ...)
  if ok then return ... end
  local err = ...
  if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
  return nil, err
end

--- Calls fn with the arguments. Raises only the caller's cancellation.
---@param fn function
---@param ... any
---@return any ...  what fn returns, or nil and the error that it raised
return function(fn, ...) return outcome(pcall(fn, ...)) end
