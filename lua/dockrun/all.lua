local runtime = require "dockrun.core.runtime"

--- Runs functions at the same time and waits for all. If one fails, the others are cancelled and its error is raised.
---@param functions (fun(): any)[]
---@return any[] results  the first result of each, in order
return function(functions)
  local ended <close> = setmetatable({ tasks = {} }, {
    __close = function(self)
      for _, task in ipairs(self.tasks) do task:cancel() end
      for _, task in ipairs(self.tasks) do pcall(task.await, task) end
    end,
  })
  local results, failure = {}, nil
  local function fail(err)
    if failure then return end
    failure = { err }
    for _, task in ipairs(ended.tasks) do task:cancel() end
  end
  for i, fn in ipairs(functions) do
    ended.tasks[i] = runtime.spawn(function()
      local ok, value = pcall(fn)
      if ok then results[i] = value else fail(value) end
    end)
  end
  for _, task in ipairs(ended.tasks) do
    local ok, err = pcall(task.await, task)
    if not ok and task:status() ~= "failed" then error(err, 0) end  -- it is us who were cancelled
    if not ok then fail(err) end
  end
  if failure then error(failure[1], 0) end
  return results
end
