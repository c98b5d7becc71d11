--- Carries out a plan: adopts the allocations that stay, starts the new ones, stops those that the job no longer has, and
--- replaces others by rollout.lua. Also stops, kills and takes over jobs. The caller holds the job's lock. A replacement of
--- this file has the functions `run`, `take_over`, `stop` and `kill`.
local again = require("dockrun.driver.retry").call
local allocs = require "dockrun.task.alloc"
local internal = require "dockrun.util.internal"
local driver = require "dockrun.driver.docker"
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local plans = require "dockrun.agent.plan"
local observed = require "dockrun.agent.observed"
local teardown = require "dockrun.driver.teardown"
local rollout = require "dockrun.agent.rollout"
local runtime = require "dockrun.core.runtime"

local M = {}

local function group_of(job, name)
  for _, group in ipairs(job.groups) do
    if group.name == name then return group end
  end
end

local function recorded_group(job, name)
  local group = group_of(job, name)
  if group then return group end
  group = { name = name, count = 0, meta = {}, hooks = {}, tasks = json.array {} }  -- meta is in the definitions
  table.insert(job.groups, group)
  return group
end

local function recorded_task(seen)
  local task = seen.definition or { name = seen.task, config = {}, resources = { cpu = 2, memory = 4, network = { ports = {} } } }
  local checks = json.array {}
  for _, check in ipairs(task.checks or {}) do
    if check.type ~= "lua" then checks[#checks + 1] = check end
  end
  task.hooks, task.checks = {}, checks
  return task
end

-- The job that started these allocations, from what the state or the containers' labels hold. These hold no functions, so
-- checks in Lua are left out.
local function recorded_job(job, observations)
  local before, has_task = { name = job.name, type = job.type, meta = {}, hooks = {}, groups = json.array {} }, {}
  for _, seen in ipairs(observations) do
    local group, key = recorded_group(before, seen.group), seen.group .. " " .. seen.task
    group.count = math.max(group.count, seen.index + 1)
    if not has_task[key] then table.insert(group.tasks, recorded_task(seen)) end
    has_task[key] = true
  end
  return before, before.groups[1]
end

-- Adopts what exists of an allocation. Removes containers that cannot be adopted.
local function adopt(agent, planned, job, group)
  local here = agent:alloc(planned.alloc)
  if here then
    if planned.action == "keep" then here:redefine(job, group) end
    return here
  end
  local observations, meta = {}, nil
  for _, seen in ipairs(planned.observations) do
    if seen.adopt then
      observations[seen.task], meta = seen, seen.meta
    elseif seen.container_id then
      teardown.stop(agent.engine, agent.emitter, seen, {})
    end
  end
  if not next(observations) then
    for _, why in ipairs(teardown.directories(agent.options.state_dir, planned.observations)) do
      agent.emitter:emit({ job = job.name, group = group.name, name = planned.observations[1].task, alloc_id = planned.alloc }, "failed",
        { message = "clean-up: " .. tostring(why) })
    end
    return nil
  end
  return agent:start(job, group, planned.index, { id = planned.alloc, observations = observations, meta = meta })
end

-- Returns the last error; that task runs on with its old limits.
local function change_limits(agent, job, planned, group)
  local running, failure = {}, nil
  for _, seen in ipairs(planned.observations) do running[seen.task] = seen.state == "running" and seen.limits ~= nil end
  for _, change in ipairs(planned.tasks) do
    if change.action == "in_place" and running[change.task] then  -- a task that does not run gets them at its next start
      for _, task in ipairs(group.tasks) do
        if task.name == change.task then
          local which = { job = job.name, group = group.name, name = task.name, alloc_id = planned.alloc }
          local warnings
          local ok, err = again(function()
            local done, why
            done, why, warnings = driver.update(agent.engine, change.container_id, task)
            return done, why
          end)
          failure = failure or err
          if warnings then agent:limitation(which, warnings) end
          agent.emitter:emit(which, ok and "updated" or "failed",
            { container_id = change.container_id, message = not ok and tostring(err) or warnings })
        end
      end
    end
  end
  return failure
end

-- ---- the whole --------------------------------------------------------------------------------

local function carry_out(agent, job, plan)
  local leaving, replacing, gone, failure = {}, {}, {}, nil
  for _, planned in ipairs(plan.allocs) do
    local group = group_of(job, planned.group)
    if planned.action == "keep" then
      failure = change_limits(agent, job, planned, group) or failure
      adopt(agent, planned, job, group)
    elseif planned.action ~= "create" then
      local old_job, old_group = recorded_job(job, planned.observations)
      local alloc = adopt(agent, planned, old_job, old_group)
      if planned.action == "replace" then
        replacing[#replacing + 1] = { planned = planned, alloc = alloc }
      elseif alloc then
        alloc.replaced = true
        leaving[#leaving + 1] = alloc
      end
      table.move(planned.observations, 1, #planned.observations, #gone + 1, gone)
    end
  end
  allocs.each(leaving, "stop", "the job no longer has it")
  for _, planned in ipairs(plan.allocs) do
    if planned.action == "create" then agent:start(job, group_of(job, planned.group), planned.index) end
  end
  local ok, err = rollout.run(agent, job, replacing)
  teardown.images(agent.images, agent.emitter, gone, agent.options)
  if not ok or failure then return nil, err or failure end
  return true
end

-- Finds what can be adopted of a job, after finishing what a killed process had half done. Returns the job's row as well.
local function find_adoptable(agent, name)
  local known, err = agent.state:job(name)
  if err then return nil, err end
  local other
  other, err = agent.state:runs_elsewhere(name, agent.engine:endpoint())
  if err then return nil, err end
  if other then
    return nil, runtime.error("taken", ("job '%s' runs on another engine, %s; stop it there first, or use another --state-dir"):format(
      name, other))
  end
  local found
  found, err = observed.find(agent, name)
  if not found then return nil, err end
  if #found.unowned > 0 then
    agent:warn(("job '%s': %d of its containers are not in this state and are left alone; `dockrun adopt %s` takes them over"):format(
      name, #found.unowned, name))
  end
  local ok
  ok, err = observed.finish(agent, found, name)
  if not ok then return nil, err end
  return observed.adoptable(found), known
end

-- Plans and carries out the change from what exists.
local function change(agent, job, source, observations)
  local plan = plans.make(job, observations, function() return driver.can_update(agent.engine) end)
  local ok, err = plans.check_room(plan, agent.state, agent.options["limits.allocs"])
  if ok then ok, err = agent:record(job, source) end
  if not ok then return nil, err end
  return carry_out(agent, job, plan)
end

-- Deploys the previous version: by its text, or by what existed of it.
local function revert(agent, before, source)
  local observations, err = find_adoptable(agent, before.name)
  if not observations then return nil, err end
  return change(agent, before, source, observations)
end

local function deploy(agent, job, source, dockrun)
  local observations, known = find_adoptable(agent, job.name)
  if not observations then return nil, known end
  local ok, err = change(agent, job, source, observations)
  if ok or not err.reverts then return ok, err end
  local text = known and known.source
  local before = text and load.source(text, dockrun, true) or recorded_job(job, observations)
  local reverted, why = revert(agent, before, text)
  err.message = ("%s; %s"):format(err.message, reverted and "reverted to the previous version" or "cannot revert: " .. tostring(why))
  return nil, err
end

--- Deploys a job, whatever of it exists already. Returns once everything that exists is adopted, and every allocation that
--- needed it is replaced.
---@param agent Agent
---@param job table          normalised; the caller holds its lock, see lock.lua
---@param source? JobSource  the text of the job
---@param dockrun? table     the value of `dockrun` in hooks of a job file that is read again
---@return true? ok
---@return table? err  a failed update: the previous allocation still runs, or with `auto_revert` the previous version of the
---  job; kind "stopped": the job was stopped meanwhile
function M.run(agent, job, source, dockrun)
  local deploying <close> = runtime.spawn(internal.call, deploy, agent, job, source, dockrun)
  agent.changes[job.name] = deploying
  local _ <close> = setmetatable({}, { __close = function()
    agent.changes[job.name] = nil
    agent:note_end(job.name)
  end })
  local answer = table.pack(pcall(deploying.await, deploying))
  if answer[1] then return table.unpack(answer, 2, answer.n) end
  local err = answer[2]
  if type(err) == "table" and err.kind == "stopped" then return nil, err end
  error(err, 0)
end

-- One list for each allocation.
local function by_alloc(observations)
  local lists, index = {}, {}
  for _, seen in ipairs(observations) do
    local list = index[seen.alloc]
    if not list then
      list = { alloc = seen.alloc, index = seen.index, observations = {} }
      index[seen.alloc], lists[#lists + 1] = list, list
    end
    table.insert(list.observations, seen)
  end
  return lists
end

-- Adopts every allocation of a job as it was started.
local function adopt_all(agent, name, observations)
  local known, err = agent.state:job(name)
  if err then return nil, err end
  for _, planned in ipairs(by_alloc(observations)) do
    local old_job, old_group = recorded_job(known.definition, planned.observations)
    adopt(agent, planned, old_job, old_group)
  end
  return true
end

-- No task of a job runs: its row must not say "running".
local function note_end(agent, name)
  local known, err = agent.state:job(name)
  local _
  if known and known.status == "running" then _, err = agent.state:set_job_status(name, "dead") end
  return not err or nil, err
end

--- Adopts a job that has no text, from the state and its containers.
---@param agent Agent
---@param name string  the caller holds its lock, see lock.lua
---@return true? ok
---@return table? err
function M.take_over(agent, name)
  local observations, err = find_adoptable(agent, name)
  if not observations then return nil, err end
  if #observations > 0 then return adopt_all(agent, name, observations) end
  return note_end(agent, name)
end

--- Stops a job as its text says, including tasks that the agent has not adopted yet, and waits until nothing of it is left.
---@param agent Agent
---@param name string  the caller holds its lock, see lock.lua
---@param reason? string
---@return boolean? found  false if neither the state nor the engine has it
---@return table? err
function M.stop(agent, name, reason)
  agent:stop_job(name, reason)
  local observations, err = find_adoptable(agent, name)
  if not observations then return nil, err end
  if #observations == 0 then
    local known
    known, err = agent.state:job(name)
    return not err and known ~= nil or nil, err
  end
  local ok
  ok, err = adopt_all(agent, name, observations)
  if not ok then return nil, err end
  agent:stop_job(name, reason)
  ok, err = note_end(agent, name)  -- first: until then its images are in use
  if not ok then return nil, err end
  teardown.images(agent.images, agent.emitter, observations, agent.options)
  return true
end

--- Kills what the agent runs, and the tasks of a job that it has not adopted yet.
---@param agent Agent
---@param name string  the caller holds its lock, see lock.lua
---@return true? ok
---@return table? err
function M.kill(agent, name)
  agent:kill()
  local observations, err = find_adoptable(agent, name)
  if not observations then return nil, err end
  if #observations == 0 then return true end
  local ok
  ok, err = adopt_all(agent, name, observations)
  if not ok then return nil, err end
  agent:kill()
  return true
end

return M
