--- What is there of a job: its containers on the engine, and what the state knows of its tasks, put together. A process
--- may have been killed at any instant, so neither alone tells all.
local dirs = require "dockrun.driver.dirs"
local driver = require "dockrun.driver.docker"
local inventory = require "dockrun.driver.inventory"
local json = require "dockrun.core.json"

local M = {}

local public = { running = "running", healthy = "running", unhealthy = "running", stopping = "running", exited = "running",
  dead = "dead", failed = "failed" }

---@param row table  a task's row of the state
---@return boolean
function M.has_ended(row) return row.state == "dead" or row.state == "failed" end

-- A task of which there is no container, as driver/inventory.lua gives those that have one.
local function without_container(row)
  return {
    job = row.job, group = row.group, task = row.task, alloc = row.alloc, index = row.index, state = public[row.state] or "pending",
    image = row.image, ports = json.array(row.ports or {}), exit_code = row.exit_code, restarts = row.restarts or 0,
    started_at = row.started_at, finished_at = row.finished_at, kill_timeout = 5, definition = row.definition, row = row,
    created = "", tty = false,
  }
end

local function key_of(record) return record.alloc .. " " .. record.task end

-- Several containers of one task cannot be but by a create whose answer nobody heard: the one that is known counts.
local function better(a, b)
  if not b then return true end
  if a.row and (a.row.container_id == a.container_id) ~= (a.row.container_id == b.container_id) then
    return a.row.container_id == a.container_id
  end
  return a.created > b.created
end

---@class Found
---@field records TaskRecord[]        those that there is something of: see driver/inventory.lua; `row` is the state's
---@field allocs table<string, table> the state's allocations, by id; `live` where a task of it has not ended
---@field surplus TaskRecord[]       containers whose task has another one

-- Puts rows to containers.
local function join(containers, rows)
  local by_key, found = {}, { records = {}, allocs = {}, surplus = {} }
  for _, row in ipairs(rows) do by_key[row.alloc .. " " .. row.task] = { row = row } end
  for _, record in ipairs(containers) do
    local entry = by_key[key_of(record)] or {}
    by_key[key_of(record)] = entry
    record.row = entry.row
    if record.row then record.restarts = record.row.restarts or 0 end
    local other = entry.record
    if better(record, other) then entry.record = record end
    local worse = entry.record == record and other or other and record
    if worse then found.surplus[#found.surplus + 1] = worse end
  end
  for _, entry in pairs(by_key) do found.records[#found.records + 1] = entry.record or without_container(entry.row) end
  return found
end

-- By place; at one place, what is to stay first: the newest allocation that nobody has begun to stop.
local function sort(found)
  local function rank(record)
    local alloc = found.allocs[record.alloc]
    local meta = alloc and alloc.meta or {}
    return meta.stopping and 1 or 0, -(meta.created or 0)
  end
  table.sort(found.records, function(a, b)
    for _, key in ipairs { "job", "group", "index" } do
      if a[key] ~= b[key] then return a[key] < b[key] end
    end
    local a_stops, a_age = rank(a)
    local b_stops, b_age = rank(b)
    if a_stops ~= b_stops then return a_stops < b_stops end
    if a_age ~= b_age then return a_age < b_age end
    if a.alloc ~= b.alloc then return a.alloc < b.alloc end
    return a.task < b.task
  end)
end

--- Everything of a job, or of all jobs.
---@param engine table
---@param state? Store
---@param job? string
---@return Found? found
---@return table? err
function M.find(engine, state, job)
  -- The state first: what another process starts meanwhile has a row before it has a container.
  local rows, allocs, err = {}, {}
  if state then
    rows, err = state:tasks { job = job }
    if not rows then return nil, err end
    allocs, err = state:allocs { job = job }
    if not allocs then return nil, err end
  end
  local containers
  containers, err = inventory.list(engine, job)
  if not containers then return nil, err end
  local found = join(containers, rows)
  for _, alloc in ipairs(allocs) do found.allocs[alloc.id] = alloc end
  for _, row in ipairs(rows) do
    if not M.has_ended(row) then found.allocs[row.alloc].live = true end
  end
  sort(found)
  return found
end

local function place_of(at) return ("%s %s %d"):format(at.job, at.group, at.index) end

-- Places with an allocation that goes on. An ended one at the same place is of an earlier run. If there is any such place,
-- a run of the job was cut off: allocations at other places that have ended did so in that run, and are not begun again.
local function live_places(found)
  local places = {}
  for _, alloc in pairs(found.allocs) do
    if alloc.live and not (alloc.meta or {}).stopping then places[place_of(alloc)] = true end
  end
  return places
end

--- Whether a job has allocations, and all of them have ended.
---@param found Found  of one job
---@return boolean ended
---@return boolean failed
function M.is_over(found)
  local failed = false
  for _, record in ipairs(found.records) do
    if not record.row or not M.has_ended(record.row) then return false, false end
    failed = failed or record.row.state == "failed"
  end
  return next(found.allocs) ~= nil, failed
end

--- Of what was found of a job, that which a run begins with: allocations that have not ended, those that have while
--- others of the same run have not, and containers. Each has `goes_on` where its task is taken over as it is, and `meta`
--- of its allocation.
---@param found Found
---@return TaskRecord[]
function M.standing(found)
  local list, places = {}, live_places(found)
  local cut_off = next(places) ~= nil
  for _, record in ipairs(found.records) do
    local alloc = found.allocs[record.alloc] or {}
    record.meta = alloc.meta or {}
    local ended_in_it = cut_off and not record.meta.stopping and not places[place_of(record)]
    local goes_on = alloc.live or ended_in_it
    if record.row then record.goes_on = goes_on or false else record.goes_on = record.state == "running" end
    if record.container_id or record.goes_on then list[#list + 1] = record end
  end
  return list
end

-- Directories and leases of allocations whose tasks have all ended: a process was killed between the two.
local function finish_ended(agent, found)
  local held = {}
  for _, record in ipairs(found.records) do held[record.alloc] = held[record.alloc] or record.container_id ~= nil end
  for id, alloc in pairs(found.allocs) do
    if not alloc.live and not held[id] then
      local ok, err = dirs.remove(dirs.of(agent.options.state_dir, id, "").root)
      if not ok then return nil, err end
      ok, err = agent.state:release { alloc = id }
      if not ok then return nil, err end
    end
  end
  return true
end

-- A container whose task has ended: it could not be removed then.
local function remove_ended(agent, found)
  if not agent.options["docker.cleanup.container"] then return true end
  for _, record in ipairs(found.records) do
    if record.container_id and record.row and M.has_ended(record.row) then
      local ok, err = driver.remove(agent.engine, record.container_id)
      if not ok then return nil, err end
      record.container_id = nil
    end
  end
  return true
end

--- Finishes what a process that was killed had only half done, as far as it concerns no task that goes on. To be called
--- by who holds the job.
---@param agent Agent
---@param found Found   of the job
---@param job string
---@return true? ok
---@return table? err
function M.finish(agent, found, job)
  local ok, err = agent.images:settle(agent.is_alive)
  if not ok then return nil, err end
  for _, record in ipairs(found.surplus) do
    ok, err = driver.remove(agent.engine, record.container_id)
    if not ok then return nil, err end
  end
  ok, err = remove_ended(agent, found)
  if not ok then return nil, err end
  ok, err = finish_ended(agent, found)
  if not ok then return nil, err end
  local over, failed = M.is_over(found)
  local _
  if over then _, err = agent.state:set_job_status(job, failed and "failed" or "dead") end
  return not err or nil, err
end

return M
