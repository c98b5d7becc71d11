--- dockrun's containers on this engine: lists them, says which of them the state recorded, and reads what one is. A
--- container's labels are a claim: anyone can make a container with such labels, and `docker commit` copies them. A
--- container is dockrun's only if the state recorded it.
local check = require("dockrun.hooks.validate").problem
local allocdir = require "dockrun.driver.allocdir"
local labels = require "dockrun.driver.labels"
local json = require "dockrun.core.json"
local types = require "dockrun.job.types"
local uv = require "luv"

local M = {}

---@class Observation     a task as it was found: its row of the state (a TaskRecord), its container, or both
---@field job string
---@field group string
---@field task string
---@field alloc string
---@field index integer
---@field state "pending"|"running"|"dead"|"failed"
---@field container_id? string  nil if the task has no container
---@field image string
---@field image_id? string
---@field ports PortMapping[]
---@field exit_code? integer
---@field restarts integer
---@field started_at? string
---@field finished_at? string
---@field tty boolean
---@field created string    RFC 3339
---@field kill_timeout number
---@field stop_timeout? integer  that the engine knows; nil if an older version made the container
---@field definition? table  the task as it was when the container was made, see labels.lua
---@field row TaskRecord     of the state; of a container that the state did not record, what its labels claim
---@field limits? table      its limits now: HostConfig, see limits.lua

---@class Listed
---@field id string
---@field name string
---@field labels table<string, string>

-- A linked container has further names, such as "/other/alias".
local function name_of(container)
  for _, name in ipairs(container.Names or {}) do
    local own = name:match "^/?([^/]+)$"
    if own then return own end
  end
  return container.Id
end

--- Every container that claims to be dockrun's, of a job or of all, in one call.
---@param engine table
---@param job? string
---@param running? boolean  only those that run
---@return Listed[]? containers
---@return table? err
function M.list(engine, job, running)
  local wanted = { labels.key.runtime }
  if job then wanted[#wanted + 1] = labels.key.job .. "=" .. job end
  local containers, err = engine:container_list { all = not running, filters = { label = wanted } }
  if not containers then return nil, err end
  local list = {}
  for i, container in ipairs(containers) do
    list[i] = { id = container.Id, name = name_of(container), labels = container.Labels or {} }
  end
  return list
end

--- Whether a row of the state is about a container: by its id; or, if the answer to the creation was lost, by the intent and
--- the name. Containers and rows of dockrun 0.1.0 have no intent.
---@param row table  of a task: `alloc`, `task`, `container_id`, `detail`
---@param container Listed
---@param state_id string
---@return boolean
function M.is_recorded(row, container, state_id)
  if row.container_id then return row.container_id == container.id end
  local carried = container.labels
  return container.name == labels.container_name(row.task, row.alloc) and carried[labels.key.state] == state_id
    and carried[labels.key.intent] == (row.detail or {}).intent
end

-- ---- what a container is ----------------------------------------------------------------------

local states = { created = "pending", running = "running", paused = "running", restarting = "running", stopping = "running",
  configured = "pending", initialized = "pending" }

--- The public status of a task that is in a state of task/lifecycle.lua; any other state is "pending".
---@type table<string, "running"|"dead"|"failed">
M.status = { running = "running", healthy = "running", unhealthy = "running", stopping = "running",
  exited = "running", dead = "dead", failed = "failed" }

--- A task, from its row alone or together with its container.
---@param row table
---@param found? table  Engine API, ContainerInspect
---@return Observation
function M.observe(row, found)
  local seen = {
    job = row.job, group = row.group, task = row.task, alloc = row.alloc, index = row.index, restarts = row.restarts or 0,
    state = M.status[row.state] or "pending", image = row.image, ports = json.array(row.ports or {}),
    exit_code = row.exit_code, started_at = row.started_at, finished_at = row.finished_at, tty = false, created = "",
    definition = row.definition, kill_timeout = (row.definition or {}).kill_timeout or 5, row = row,
  }
  if not found then return seen end
  local state = found.State
  local ended = not states[state.Status]
  seen.state = states[state.Status] or (state.ExitCode == 0 and "dead" or "failed")
  seen.container_id, seen.image, seen.created = found.Id, found.Config.Image, found.Created or "0001-01-01T00:00:00Z"
  seen.exit_code = ended and state.ExitCode or nil
  seen.started_at = state.StartedAt and not state.StartedAt:find "^0001" and state.StartedAt or nil
  seen.finished_at = ended and state.FinishedAt or nil
  seen.image_id, seen.tty, seen.limits = found.Image, found.Config.Tty or false, found.HostConfig
  seen.stop_timeout = found.Config.StopTimeout
  return seen
end

-- ---- what a container claims ------------------------------------------------------------------

local function is_name(text) return text ~= "" and #text <= 255 and utf8.len(text) ~= nil and not text:find "%c" end

local function read_json(text)
  local value = json.decode(text)
  return type(value) == "table" and value or nil
end

local function read_ports(text)
  local list = read_json(text)
  return list and (#list > 0 or not next(list)) and not check("ports", list) and list or nil
end

local function read_definition(text)
  local task = read_json(text)
  local resources = task and task.resources
  local complete = task and type(task.config) == "table" and type(task.name) == "string" and type(resources) == "table"
    and type(resources.network) == "table" and type(resources.network.ports) == "table"
  return complete and type(task.kill_timeout) == "number" and task or nil
end

local function is_index(text) return text:find "^%d+$" and #text <= 9 and math.tointeger(tonumber(text)) end

-- For each label: its field, the function that reads it, and the words for what it must be.
local claims = {
  { "job", function(text) return is_name(text) and text end, "a name" },
  { "group", function(text) return is_name(text) and text end, "a name" },
  { "task", function(text) return is_name(text) and text end, "a name" },
  { "alloc", function(text) return text:find "^%x[%x-]*$" and #text <= 64 and text end, "an allocation's id" },
  { "index", is_index, "a whole number" },
  { "ports", read_ports, "a list of ports" },
  { "definition", read_definition, "a task's definition" },
}

local function read_labels(carried)
  local row = {}
  for _, claim in ipairs(claims) do
    local field, read, must = table.unpack(claim)
    local label = labels.key[field]
    if not carried[label] then return nil, ("it has no label %s"):format(label) end
    row[field] = read(carried[label]) or nil
    if row[field] == nil then return nil, ("its label %s is not %s"):format(label, must) end
  end
  return row
end

-- Whether a path is an allocation's below this state directory, by the directory's own name or by the one that a link gives it.
local function is_own_path(path, state_dir, alloc)
  for _, dir in ipairs { state_dir, uv.fs_realpath(state_dir) or nil } do
    if path:gsub("/+", "/") == allocdir.of(dir, alloc, "").root:gsub("/+", "/") then return true end
  end
  return false
end

--- The task that an unrecorded container claims to be, if a state in this directory can have made the container.
---@param container Listed
---@param state_dir string
---@return table? row    as a TaskRecord: job, group, task, alloc, index, ports, definition, type
---@return string? why   if it cannot
function M.claim(container, state_dir)
  local row, why = read_labels(container.labels)
  if not row then return nil, why end
  if row.definition.name ~= row.task then return nil, "its definition is another task's" end
  if container.name ~= labels.container_name(row.task, row.alloc) then
    return nil, ("its name is not %s"):format(types.show(labels.container_name(row.task, row.alloc)))
  end
  local root = container.labels[labels.key.alloc_dir]
  if root and not is_own_path(root, state_dir, row.alloc) then
    return nil, "its directory is another state directory's"
  end
  row.type = container.labels[labels.key.type] == "service" and "service" or "batch"
  return row
end

return M
