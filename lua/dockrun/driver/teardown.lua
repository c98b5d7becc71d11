--- Stops and removes tasks from outside: for a process that did not start them, by what was found on the engine. What a process
--- runs itself ends in task/stop.lua.
local retry = require "dockrun.driver.retry"
local allocdir = require "dockrun.driver.allocdir"
local driver = require "dockrun.driver.docker"

local M = {}

local function identity(seen)
  return { job = seen.job, group = seen.group, name = seen.task, alloc_id = seen.alloc }
end

--- Stops a task as its job wants, and removes its container unless that is to be kept. Sets `removed` in the observation.
---@param engine table
---@param emitter Emitter
---@param seen Observation
---@param opts { keep?: boolean, reason?: string }
---@return true? ok
---@return table? err
function M.stop(engine, emitter, seen, opts)
  local id, grace = seen.container_id, math.ceil(seen.kill_timeout)
  if seen.state == "running" then
    emitter:emit(identity(seen), "killing", { container_id = id, message = opts.reason })
    local ok, err = retry.call(function() return engine:container_stop(id, { t = grace, timeout = grace + 60 }) end)
    if not ok and err.status ~= 404 then return nil, err end
    emitter:emit(identity(seen), "killed", { container_id = id })
  end
  if opts.keep then return true end
  local ok, err = driver.remove(engine, id)
  if not ok then return nil, err end
  seen.removed = true
  emitter:emit(identity(seen), "removed", { container_id = id })
  return true
end

--- Removes the directories of allocations that have no container any more.
---@param state_dir string
---@param observations Observation[]  all of the allocations
---@return table[] errors
function M.directories(state_dir, observations)
  local kept, errors = {}, {}
  for _, seen in ipairs(observations) do kept[seen.alloc] = kept[seen.alloc] or not seen.removed end
  for _, seen in ipairs(observations) do
    if not kept[seen.alloc] then
      local ok, err = allocdir.remove(allocdir.of(state_dir, seen.alloc, "").root)
      if not ok then errors[#errors + 1] = err end
    end
  end
  return errors
end

--- Removes the images that dockrun pulled for these tasks and that nothing uses any more.
---@param images ImagePuller
---@param emitter Emitter
---@param observations Observation[]
---@param options table<string, any>
function M.images(images, emitter, observations, options)
  if not options["docker.cleanup.image"] then return end
  for _, seen in ipairs(observations) do
    if seen.image and images:is_ours(seen.image) and images:remove(seen.image) then
      emitter:emit(identity(seen), "image_removed", { message = seen.image })
    end
  end
end

return M
