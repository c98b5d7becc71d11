-- For what goes on and on whatever it meets: a watcher that memory was short for, at one moment, must not leave those alone
-- who rely on it.
local function outcome(ok, ...)
  if ok then return ... end
  local err = ...
  if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
  return nil, err
end

--- Calls fn with the arguments. Raises only that the caller is cancelled.
---@param fn function
---@param ... any
---@return any ...  what fn returns, or nil and what it raised
return function(fn, ...) return outcome(pcall(fn, ...)) end
