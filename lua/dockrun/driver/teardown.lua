--- Ends and removes tasks by what the engine knows of them: for a process that did not start them.
local retry = require "dockrun.driver.retry"
local allocdir = require "dockrun.driver.allocdir"
local driver = require "dockrun.driver.docker"

local M = {}

local function identity(record)
  return { job = record.job, group = record.group, name = record.task, alloc_id = record.alloc }
end

--- Stops a task as its job wants, and removes its container unless that is to be kept. Marks the record `removed`.
---@param engine table
---@param emitter Emitter
---@param record TaskRecord
---@param opts { keep?: boolean, reason?: string }
---@return true? ok
---@return table? err
function M.stop(engine, emitter, record, opts)
  local id, grace = record.container_id, math.ceil(record.kill_timeout)
  if record.state == "running" then
    emitter:emit(identity(record), "killing", { container_id = id, message = opts.reason })
    local ok, err = retry.call(function() return engine:container_stop(id, { t = grace, timeout = grace + 60 }) end)
    if not ok and err.status ~= 404 then return nil, err end
    emitter:emit(identity(record), "killed", { container_id = id })
  end
  if opts.keep then return true end
  local ok, err = driver.remove(engine, id)
  if not ok then return nil, err end
  record.removed = true
  emitter:emit(identity(record), "removed", { container_id = id })
  return true
end

--- Removes the directories of allocations of which no container is left.
---@param state_dir string
---@param records TaskRecord[]  all of the allocations
---@return table[] errors
function M.directories(state_dir, records)
  local kept, errors = {}, {}
  for _, record in ipairs(records) do kept[record.alloc] = kept[record.alloc] or not record.removed end
  for _, record in ipairs(records) do
    if not kept[record.alloc] then
      local ok, err = allocdir.remove(allocdir.of(state_dir, record.alloc, "").root)
      if not ok then errors[#errors + 1] = err end
    end
  end
  return errors
end

--- Removes the images that dockrun pulled for these tasks and that nothing uses any more.
---@param images ImagePuller
---@param emitter Emitter
---@param records TaskRecord[]
---@param options table<string, any>
function M.images(images, emitter, records, options)
  if not options["docker.cleanup.image"] then return end
  for _, record in ipairs(records) do
    if record.image and images:is_ours(record.image) and images:remove(record.image) then
      emitter:emit(identity(record), "image_removed", { message = record.image })
    end
  end
end

return M
