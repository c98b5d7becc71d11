--- Observes a job: joins the tasks' rows in the state with their containers on the engine. A process may have been killed at
--- any instant, so neither alone is complete. Never counts a container as the job's that the state did not record, whatever its
--- labels say. A replacement of this file has the functions below.
local allocdir = require "dockrun.driver.allocdir"
local driver = require "dockrun.driver.docker"
local labels = require "dockrun.driver.labels"
local containers = require "dockrun.driver.containers"

local M = {}

--- Whether a task has ended.
---@param row TaskRecord
---@return boolean
function M.has_ended(row) return row.state == "dead" or row.state == "failed" end

---@class Forgotten
---@field intent Intent        to remove a container whose task is not in the state any more
---@field observation? Observation  its container; nil if it does not exist

---@class Found
---@field observations Observation[]    the state's tasks, each with its container if that exists
---@field allocs table<string, table>  the state's allocations, by id; `live` if a task of it has not ended
---@field forgotten Forgotten[]
---@field unowned Observation[]         containers that this state may have made but did not record: see adopt.lua
---@field strangers { name: string, reason: string }[]  other containers with a label of dockrun's

-- Whether the state has recorded a container since the row of its task was read. Updates the row if so.
local function is_recorded_now(state, row, container)
  local now = not row.forgotten and state:task(row.alloc, row.task)
  if not now or not containers.is_recorded(now, container, state.id) then return false end
  for key in pairs(row) do row[key] = nil end
  for key, value in pairs(now) do row[key] = value end
  return true
end

-- Makes the function that finds the row of a container.
local function finder(rows, state)
  local ids, names = {}, {}
  for _, row in ipairs(rows) do
    ids[row.container_id or ""], names[labels.container_name(row.task, row.alloc)] = row, row
  end
  return function(container)
    local row = ids[container.id] or names[container.name]
    if not row then return nil end
    return (containers.is_recorded(row, container, state.id) or is_recorded_now(state, row, container)) and row or nil
  end
end

-- The intents to remove containers on this engine, as rows of tasks.
local function forgotten_rows(intents, job, endpoint)
  local rows = {}
  for _, intent in ipairs(intents) do
    local data = intent.data
    local here = not data.endpoint or data.endpoint == endpoint
    if intent.action == "remove" and here and (not job or data.job == job) then
      rows[#rows + 1] = { job = data.job, group = "", index = 0, alloc = intent.alloc, task = intent.task, state = "dead",
        container_id = data.container_id, detail = { intent = data.intent }, forgotten = intent }
    end
  end
  return rows
end

-- Adds a container that is not recorded. If something is wrong with it, that is no error: it is not ours.
local function add_unrecorded(engine, container, state_dir, found)
  local row, why = containers.claim(container, state_dir)
  local inspected, err
  if row then inspected, err = engine:container_inspect(container.id) end
  if inspected then
    table.insert(found.unowned, containers.observe(row, inspected))
  elseif not err or err.status ~= 404 then
    table.insert(found.strangers, { name = container.name, reason = why or "cannot inspect it: " .. tostring(err) })
  end
end

-- Joins containers and rows.
local function join(agent, listed, rows, forgotten)
  local engine, found, by_row = agent.engine, { observations = {}, forgotten = {}, unowned = {}, strangers = {} }, {}
  local row_of = finder(table.move(forgotten, 1, #forgotten, #rows + 1, { table.unpack(rows) }), agent.state)
  for _, container in ipairs(listed) do
    local row = row_of(container)
    if row then
      local inspected, err = engine:container_inspect(container.id)
      if not inspected and err.status ~= 404 then return nil, err end
      by_row[row] = inspected
    else
      add_unrecorded(engine, container, agent.options.state_dir, found)
    end
  end
  for i, row in ipairs(rows) do found.observations[i] = containers.observe(row, by_row[row]) end
  for i, row in ipairs(forgotten) do
    found.forgotten[i] = { intent = row.forgotten, observation = by_row[row] and containers.observe(row, by_row[row]) }
  end
  return found
end

-- By place. At one place, the newest allocation that is not being stopped comes first: it is the one to keep.
local function sort(found)
  local function rank(seen)
    local alloc = found.allocs[seen.alloc]
    local meta = alloc and alloc.meta or {}
    return meta.stopping and 1 or 0, -(meta.created or 0)
  end
  table.sort(found.observations, function(a, b)
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

-- Reads the state of a job, or of all jobs.
local function read(state, job, endpoint)
  if not state then return {}, {}, {} end
  local rows, err = state:tasks { job = job }
  if not rows then return nil, err end
  local allocs, intents
  allocs, err = state:allocs { job = job }
  if not allocs then return nil, err end
  intents, err = state:intents()
  if not intents then return nil, err end
  return rows, allocs, forgotten_rows(intents, job, endpoint)
end

--- Finds everything of a job, or of all jobs.
---@param agent { engine: table, state?: Store, options: table<string, any> }
---@param job? string
---@return Found? found
---@return table? err
function M.find(agent, job)
  -- The state first: a task that another process starts meanwhile has a row before it has a container.
  local rows, allocs, forgotten = read(agent.state, job, agent.engine:endpoint())
  if not rows then return nil, allocs end
  local listed, err = containers.list(agent.engine, job)
  if not listed then return nil, err end
  local found
  found, err = join(agent, listed, rows, forgotten)
  if not found then return nil, err end
  found.allocs = {}
  for _, alloc in ipairs(allocs) do found.allocs[alloc.id] = alloc end
  for _, row in ipairs(rows) do
    if not M.has_ended(row) then found.allocs[row.alloc].live = true end
  end
  sort(found)
  return found
end

local function place_of(at) return ("%s %s %d"):format(at.job, at.group, at.index) end

-- Places with an allocation that has not ended. An ended one at the same place is of an earlier run. If there is any such place,
-- a run of the job was interrupted: allocations at other places that have ended, ended in that run and are not restarted.
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
  for _, seen in ipairs(found.observations) do
    if not M.has_ended(seen.row) then return false, false end
    failed = failed or seen.row.state == "failed"
  end
  return next(found.allocs) ~= nil, failed
end

--- Selects what a run of a job starts from: allocations that have not ended, those that have ended while others of the same
--- run have not, and their containers. Sets `adopt` if the task is adopted as it is, and `meta` of its allocation.
---@param found Found
---@return Observation[]
function M.adoptable(found)
  local list, places = {}, live_places(found)
  local cut_off = next(places) ~= nil
  for _, seen in ipairs(found.observations) do
    local alloc = found.allocs[seen.alloc]
    seen.meta = alloc.meta or {}
    local ended_in_it = cut_off and not seen.meta.stopping and not places[place_of(seen)]
    seen.adopt = alloc.live or ended_in_it
    if seen.container_id or seen.adopt then list[#list + 1] = seen end
  end
  return list
end

-- Removes directories and leases of allocations whose tasks have all ended: a process was killed before it could.
local function finish_ended(agent, found)
  local held = {}
  for _, seen in ipairs(found.observations) do held[seen.alloc] = held[seen.alloc] or seen.container_id ~= nil end
  for id, alloc in pairs(found.allocs) do
    if not alloc.live and not held[id] then
      local ok, err = allocdir.remove(allocdir.of(agent.options.state_dir, id, "").root)
      if not ok then return nil, err end
      ok, err = agent.state:release { alloc = id }
      if not ok then return nil, err end
    end
  end
  return true
end

--- Removes the container of a task that has ended, and records that.
---@param agent Agent
---@param seen Observation
---@return true? ok
---@return table? err
function M.remove_ended(agent, seen)
  local ok, err = driver.remove(agent.engine, seen.container_id)
  if not ok then return nil, err end
  local _
  _, err = agent.state:container_gone(seen.alloc, seen.task, seen.container_id)
  seen.container_id = nil
  return not err or nil, err
end

--- Removes the container of a task that is not in the state any more.
---@param agent Agent
---@param forgotten Forgotten
---@return true? ok
---@return table? err
function M.remove_forgotten(agent, forgotten)
  local ok, err = true, nil
  if forgotten.observation then ok, err = driver.remove(agent.engine, forgotten.observation.container_id) end
  local _
  if ok then _, err = agent.state:done(forgotten.intent.id) end
  return not err or nil, err
end

-- Removes containers whose tasks have ended: an earlier removal failed.
local function remove_containers(agent, found)
  if not agent.options["docker.cleanup.container"] then return true end
  for _, seen in ipairs(found.observations) do
    if seen.container_id and M.has_ended(seen.row) then
      local ok, err = M.remove_ended(agent, seen)
      if not ok then return nil, err end
    end
  end
  for _, forgotten in ipairs(found.forgotten) do
    if forgotten.observation or forgotten.intent.data.container_id then
      local ok, err = M.remove_forgotten(agent, forgotten)
      if not ok then return nil, err end
    end
  end
  return true
end

--- Finishes what a killed process had half done, except for tasks that are adopted. The caller holds the job's lock.
---@param agent Agent
---@param found Found   of the job
---@param job string
---@return true? ok
---@return table? err
function M.finish(agent, found, job)
  local ok, err = agent.images:settle(agent.is_alive)
  if not ok then return nil, err end
  ok, err = remove_containers(agent, found)
  if not ok then return nil, err end
  ok, err = finish_ended(agent, found)
  if not ok then return nil, err end
  local over, failed = M.is_over(found)
  local _
  if over then _, err = agent.state:set_job_status(job, failed and "failed" or "dead") end
  return not err or nil, err
end

return M
