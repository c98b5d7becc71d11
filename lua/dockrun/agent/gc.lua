--- Garbage collection: finds and removes containers, networks, directories, images, leases and rows that no job owns any
--- more. Never removes what this state did not record, whatever its labels say: another tool, or a dockrun with another state
--- directory, may own it. A replacement of this file has the functions `find`, `collect` and `run`.
local try = require "dockrun.util.try"
local allocdir = require "dockrun.driver.allocdir"
local labels = require "dockrun.driver.labels"
local network = require "dockrun.driver.network"
local ports = require "dockrun.task.ports"
local observed = require "dockrun.agent.observed"
local runtime = require "dockrun.core.runtime"
local time = require "dockrun.util.time"
local uv = require "luv"

local M = {}

---@class Garbage
---@field kind "container"|"network"|"directory"|"image"|"job"
---@field name string
---@field reason string
---@field remove fun(): true?, table?

local function age_of(moment) return time.now() - time.seconds(moment) end

-- Already gone, or another process is removing it: counts as removed.
local function removed(ok, err)
  if ok or err.status == 404 or err.status == 409 then return true end
  return nil, err
end

local function is_fresh(agent, seconds) return time.now() - seconds < agent.options["gc.creation_grace"] end

local function add_containers(agent, found, list)
  local function add(seen, reason, remove)
    if is_fresh(agent, time.seconds(seen.created)) then return end
    list[#list + 1] = { kind = "container", name = labels.container_name(seen.task, seen.alloc), reason = reason, remove = remove }
    seen.goes = true  -- and so do its directories and image
  end
  for _, seen in ipairs(found.observations) do
    if seen.container_id and observed.has_ended(seen.row) and agent.options["docker.cleanup.container"] then
      add(seen, "its task has ended", function() return observed.remove_ended(agent, seen) end)
    end
  end
  for _, forgotten in ipairs(found.forgotten) do
    local seen = forgotten.observation
    if seen then add(seen, "no job owns it", function() return observed.remove_forgotten(agent, forgotten) end) end
  end
end

-- Drops intents to remove containers that do not exist.
local function settle_forgotten(agent, found)
  for _, forgotten in ipairs(found.forgotten) do
    if not forgotten.observation and not is_fresh(agent, time.seconds(forgotten.intent.at)) then
      local _, err = agent.state:done(forgotten.intent.id)
      if err then return nil, err end
    end
  end
  return true
end

-- Scripts and hooks may create networks for an allocation, with the labels of its containers. A network whose allocation is not
-- in the state is left alone.
local function add_networks(agent, found, list, ignored)
  local networks, err = network.list(agent.engine, agent.state.id)
  if not networks then return nil, err end
  for _, net in ipairs(networks) do
    local alloc = found.allocs[net.alloc or ""]
    if not alloc then
      ignored[#ignored + 1] = { kind = "network", name = net.name, reason = "its allocation is not in this state" }
    elseif not alloc.live and age_of(net.created) >= agent.options["gc.creation_grace"] then
      list[#list + 1] = {
        kind = "network", name = net.name, reason = "no job owns it",
        remove = function()
          local ok, why = agent.engine:network_remove(net.id)
          if not ok and why.status == 403 then return true end  -- another tool's container is in it
          return removed(ok, why)
        end,
      }
    end
  end
  return true
end

local function add_directories(agent, found, list, ids)
  local held = {}
  for _, seen in ipairs(found.observations) do
    held[seen.alloc] = held[seen.alloc] or seen.container_id ~= nil and not seen.goes
  end
  for _, forgotten in ipairs(found.forgotten) do
    if forgotten.observation and not forgotten.observation.goes then held[forgotten.observation.alloc] = true end
  end
  -- After the state was lost, containers that it does not know may use theirs. They are called <task>-<alloc id>.
  local function has_name(id)
    for _, stranger in ipairs(found.strangers) do
      if stranger.name:find("-" .. id, 1, true) then return true end
    end
    return false
  end
  for _, seen in ipairs(found.unowned) do held[seen.alloc] = held[seen.alloc] or not found.allocs[seen.alloc] end
  for _, id in ipairs(ids) do
    local root = allocdir.of(agent.options.state_dir, id, "").root
    local alloc, stat = found.allocs[id], uv.fs_stat(root)
    local fresh = stat and time.now() - stat.mtime.sec < agent.options["gc.creation_grace"]
    if stat and not held[id] and not (alloc and alloc.live) and not fresh and (alloc or not has_name(id)) then
      list[#list + 1] = { kind = "directory", name = root, reason = "no job owns it", remove = function() return allocdir.remove(root) end }
    end
  end
end

local function add_images(agent, found, list)
  if not agent.options["docker.cleanup.image"] then return true end
  local images, err = agent.state:images()
  if not images then return nil, err end
  local going = {}
  for _, seen in ipairs(found.observations) do going[seen.container_id or ""] = seen.goes end
  for _, forgotten in ipairs(found.forgotten) do
    if forgotten.observation then going[forgotten.observation.container_id] = forgotten.observation.goes end
  end
  for _, image in ipairs(images) do
    local used, _
    local is_ours, why = agent.images:is_ours(image.reference)
    if not why then used, why = agent.images:is_used(image.reference, going) end
    local goes = not why and not used and age_of(image.last_used_at) >= agent.options["docker.cleanup.image_delay"]
    if goes and is_ours then
      list[#list + 1] = {
        kind = "image", name = image.reference, reason = "dockrun pulled it, and nothing uses it",
        remove = function()
          local _, problem = agent.images:remove(image.reference)
          return not problem or nil, problem
        end,
      }
    elseif goes then
      _, why = agent.state:forget_image(image.reference)
    end
    if why then return nil, why end
  end
  return true
end

-- Jobs that were submitted, and whose last task ended, long ago.
local function add_jobs(agent, found, list, jobs)
  local live, last = {}, {}
  for _, job in ipairs(jobs) do last[job.name] = job.submitted_at end
  for _, seen in ipairs(found.observations) do
    local alloc = found.allocs[seen.alloc]
    live[seen.job] = live[seen.job] or alloc and alloc.live or seen.container_id ~= nil
    local at = seen.row and seen.row.finished_at
    if at and at > (last[seen.job] or "") then last[seen.job] = at end
  end
  for _, job in ipairs(jobs) do
    if not live[job.name] and age_of(last[job.name]) >= agent.options["gc.job_threshold"] then
      list[#list + 1] = {
        kind = "job", name = job.name, reason = "it has ended", remove = function()
          local _, problem = agent.state:remove_job(job.name, job.submitted_at)
          return not problem or nil, problem
        end,
      }
    end
  end
end

-- Containers with labels of dockrun's that this state did not record.
local function add_ignored(found, ignored)
  for _, seen in ipairs(found.unowned) do
    ignored[#ignored + 1] = { kind = "container", name = labels.container_name(seen.task, seen.alloc),
      reason = "it is not in this state; `dockrun adopt` takes it over" }
  end
  for _, stranger in ipairs(found.strangers) do
    ignored[#ignored + 1] = { kind = "container", name = stranger.name, reason = stranger.reason }
  end
end

--- Finds what is garbage now. Also finishes what a killed process left half done in the state.
---@param agent Agent
---@return Garbage[]? list
---@return table|{ kind: string, name: string, reason: string }[] err_or_ignored  has labels of dockrun's, but this state did not record it
function M.find(agent)
  local ok, err = agent.images:settle(agent.is_alive)
  if not ok then return nil, err end
  -- First: what another process starts meanwhile is in neither list.
  local ids = allocdir.list(agent.options.state_dir)
  local jobs, found
  jobs, err = agent.state:jobs()
  if not jobs then return nil, err end
  found, err = observed.find(agent)
  if not found then return nil, err end
  local list, ignored = {}, {}
  add_ignored(found, ignored)
  add_containers(agent, found, list)
  add_directories(agent, found, list, ids)
  add_jobs(agent, found, list, jobs)
  for _, add in ipairs { add_networks, add_images } do
    ok, err = add(agent, found, list, ignored)
    if not ok then return nil, err end
  end
  ok, err = settle_forgotten(agent, found)
  if not ok then return nil, err end
  return list, ignored
end

--- Removes what was found, and reclaims the leases of processes that have ended.
---@param agent Agent
---@param list Garbage[]
---@param report? fun(garbage: Garbage, err?: table)  called after each removal
---@return true? ok
---@return table? err  the first
function M.collect(agent, list, report)
  local first
  for _, garbage in ipairs(list) do
    local ok, err = garbage.remove()
    first = first or not ok and err or nil
    if report then report(garbage, not ok and err or nil) end
  end
  local _, err = ports.reclaim(agent)
  first = first or err
  if first then return nil, first end
  return true
end

local function collect_once(agent)
  local list, err = M.find(agent)
  if not list then return nil, err end
  return M.collect(agent, list)
end

--- Collects every `gc.period` seconds until it is cancelled.
---@param agent Agent
function M.run(agent)
  while agent.options["gc.period"] > 0 do
    runtime.sleep(agent.options["gc.period"])
    local _, err = try(collect_once, agent)
    if err then agent:warn(err) end
  end
end

return M
