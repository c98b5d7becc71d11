--- The rolling update: replaces the allocations of a job that need another container, as its `update` block says
--- (https://developer.hashicorp.com/nomad/docs/job-specification/update). Never reverts: the caller does. A replacement of
--- this file has the function `run`.
local dependencies = require "dockrun.job.dependencies"
local internal = require "dockrun.util.internal"
local runtime = require "dockrun.core.runtime"

local M = {}

local function group_of(job, name)
  for _, group in ipairs(job.groups) do
    if group.name == name then return group end
  end
end

local POLL = 0.1  -- seconds between two checks of whether an allocation is healthy

-- Waits until all tasks are healthy for `least` seconds without a break. nil, why if a task fails or after `most` seconds.
local function await_health(alloc, least, most)
  local deadline, since = runtime.now() + most, nil
  while true do
    local healthy = true
    for _, task in ipairs(alloc.tasks) do
      if task.state == "failed" then return nil, ("task '%s' failed"):format(task.name) end
      local last = dependencies.stage(task.context.spec) == "poststop"
      healthy = healthy and (last or task:is_healthy())
    end
    since = healthy and (since or runtime.now()) or nil
    if since and runtime.now() - since >= least then return true end
    if runtime.now() > deadline then return nil, ("not healthy within %g s"):format(most) end
    runtime.sleep(POLL)
  end
end

local function has_fixed_ports(group)
  for _, task in ipairs(group.tasks) do
    for _, port in ipairs(task.resources.network.ports) do
      if port.static then return true end
    end
  end
  return false
end

-- Replaces one allocation. Without fixed ports, the old one stops only once its successor is healthy.
local function replace(agent, job, replacement, policy)
  local group = group_of(job, replacement.planned.group)
  local stays = replacement.alloc and policy and not has_fixed_ports(group)
  if replacement.alloc then replacement.alloc.replaced = true end
  if replacement.alloc and not stays then replacement.alloc:stop "replaced by a new allocation" end
  local successor = agent:start(job, group, replacement.planned.index)
  if not policy then return true end
  local ok, why = await_health(successor, policy.min_healthy_time, policy.healthy_deadline)
  if ok then
    if stays then replacement.alloc:stop "replaced by a new allocation" end
    return true
  end
  successor:stop(why)
  if stays then replacement.alloc.replaced = false end
  if stays then why = why .. "; the previous allocation still runs" end
  local err = runtime.error("failed", ("the update of %s.%s[%d] failed: %s"):format(job.name, group.name, replacement.planned.index, why))
  err.reverts = policy.auto_revert
  return nil, err
end

--- Replaces allocations group by group, `max_parallel` at a time; stops at the first that fails.
---@param agent Agent
---@param job table  normalised
---@param list { planned: PlanAlloc, alloc?: Alloc }[]  the allocations to replace, group by group
---@return true? ok
---@return table? err  kind "failed"; `reverts` if the job's policy asks for its previous version
function M.run(agent, job, list)
  local at = 1
  while list[at] do
    local group = group_of(job, list[at].planned.group)
    local policy = group.update or job.update
    if policy and policy.max_parallel == 0 then policy = nil end  -- as Nomad: all at once
    local width = policy and policy.max_parallel or math.huge
    local batch, failure = {}, nil
    while list[at] and list[at].planned.group == group.name and #batch < width do
      batch[#batch + 1] = list[at]
      at = at + 1
    end
    local replacing <close> = setmetatable({}, { __close = function(begun)
      for _, fiber in ipairs(begun) do fiber:cancel() end
      for _, fiber in ipairs(begun) do pcall(fiber.await, fiber) end
    end })
    for i, replacement in ipairs(batch) do
      replacing[i] = runtime.spawn(internal.call, function()
        local ok, err = replace(agent, job, replacement, policy)
        failure = failure or not ok and err or nil
      end)
    end
    for _, fiber in ipairs(replacing) do fiber:await() end
    if failure then return nil, failure end
  end
  return true
end

return M
