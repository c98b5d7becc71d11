-- What dockrun's containers on this engine are: read from their labels, so that any process can tell.
local driver = require "dockrun.driver.docker"
local json = require "dockrun.core.json"

local M = {}

---@class TaskRecord
---@field job string
---@field group string
---@field task string
---@field alloc string
---@field index integer
---@field state "pending"|"running"|"dead"|"failed"
---@field container_id? string  nil only for what recovery.lua adds
---@field image string
---@field ports PortMapping[]
---@field exit_code? integer
---@field restarts integer
---@field started_at? string
---@field finished_at? string
---@field tty boolean
---@field created string    RFC 3339
---@field state_id? string  the state that knows it, see store.lua
---@field kill_timeout number
---@field stop_timeout? integer  that the engine knows; nil if an older version made the container
---@field alloc_dir? string  its directories on this host
---@field definition? table  the task as it was when the container was made, see driver/docker.lua
---@field row? table         what the state knows of it, see recovery.lua
---@field limits? table      what it may use now: the engine's HostConfig

local states = { created = "pending", running = "running", paused = "running", restarting = "running" }

local function record(found)
  local labels, state = found.Config.Labels, found.State
  local at = driver.labels
  local ended = not states[state.Status]
  return {
    job = labels[at.job], group = labels[at.group], task = labels[at.task], alloc = labels[at.alloc],
    index = math.tointeger(tonumber(labels[at.index])) or 0,
    state = states[state.Status] or (state.ExitCode == 0 and "dead" or "failed"),
    container_id = found.Id, image = found.Config.Image,
    ports = json.array(json.decode(labels[at.ports] or "[]") or {}),
    exit_code = ended and state.ExitCode or nil, restarts = found.RestartCount or 0,
    started_at = state.StartedAt and not state.StartedAt:find "^0001" and state.StartedAt or nil,
    finished_at = ended and state.FinishedAt or nil,
    tty = found.Config.Tty or false, created = found.Created or "0001-01-01T00:00:00Z", state_id = labels[at.state],
    kill_timeout = tonumber(labels[at.kill_timeout]) or 5, stop_timeout = found.Config.StopTimeout, alloc_dir = labels[at.alloc_dir],
    definition = json.decode(labels[at.definition] or ""), limits = found.HostConfig,
  }
end

--- Every container of a job (or of all), in the order of job, group, index and task.
---@param engine table
---@param job? string
---@param task? string
---@return TaskRecord[]? records
---@return table? err
function M.list(engine, job, task)
  local labels = { driver.labels.runtime }
  if job then labels[#labels + 1] = driver.labels.job .. "=" .. job end
  if task then labels[#labels + 1] = driver.labels.task .. "=" .. task end
  local containers, err = engine:container_list { all = true, filters = { label = labels } }
  if not containers then return nil, err end
  local records = {}
  for _, container in ipairs(containers) do
    local found
    found, err = engine:container_inspect(container.Id)
    if found then
      records[#records + 1] = record(found)
    elseif err.status ~= 404 then
      return nil, err
    end
  end
  table.sort(records, function(a, b)
    for _, key in ipairs { "job", "group", "index", "task", "container_id" } do
      if a[key] ~= b[key] then return a[key] < b[key] end
    end
    return false
  end)
  return records
end

return M
