--- Checks the types of the engine's answers (Engine API v1.41), so that the rest of dockrun never gets a field of another
--- type, whatever program answers on the socket.
local M = {}

-- A shape is the name of a type, "?" after it if the field may be absent; a table of shapes by field; or list(shape).
-- Lists and maps are both "table". A field that is not named is not checked.
--
--   { Id = "id", Size = "integer?" } accepts { Id = "0f3a", Other = true }, and reports for { Id = "../x" }: "Id is no id"
local function list(shape, optional) return { list = shape, optional = optional } end
local function fields(shape) return { fields = shape, optional = true } end

-- A message of a pull, a load, an import or a push (Engine API, CreateImageInfo).
local progress = {
  status = "string?", id = "string?", stream = "string?", error = "string?", errorDetail = fields { message = "string?" },
  progressDetail = fields { current = "integer?", total = "integer?" },
}

local shapes = {
  container_create = { Id = "id", Warnings = list("string", true) },
  container_inspect = {
    Id = "id", Name = "string?", Image = "id", RestartCount = "integer?", Created = "time?",
    HostConfig = {
      Memory = "integer?", MemoryReservation = "integer?", CpuShares = "integer?", CpuQuota = "integer?", CpuPeriod = "integer?",
      CpusetCpus = "string?", PidsLimit = "integer?", BlkioWeight = "integer?",
    },
    State = {
      Status = "string", Running = "boolean", Paused = "boolean?", Restarting = "boolean?", OOMKilled = "boolean?", Pid = "integer?",
      ExitCode = "integer", Error = "string?", StartedAt = "time?", FinishedAt = "time?", Health = fields { Status = "string?" },
    },
    Config = { Image = "string", Tty = "boolean?", StopTimeout = "integer?", Labels = { map = "string", optional = true } },
    NetworkSettings = fields { Networks = { map = fields { GlobalIPv6Address = "string?" }, optional = true } },
  },
  container_list = list {
    Id = "id", Image = "string?", ImageID = "string?", Names = list("string", true), Labels = { map = "string", optional = true },
    Ports = list({ PublicPort = "integer?" }, true),
  },
  container_update = { Warnings = list("string", true) },
  container_stats = {
    cpu_stats = fields { cpu_usage = fields { total_usage = "number?" }, system_cpu_usage = "number?", online_cpus = "integer?" },
    memory_stats = fields { usage = "number?", limit = "number?", stats = "table?" }, networks = "table?", pids_stats = "table?",
  },
  events = { Type = "string?", Action = "string?", Actor = fields { ID = "string?", Attributes = { map = "string", optional = true } } },
  exec_create = { Id = "id" },
  exec_inspect = { Running = "boolean?", ExitCode = "integer?", Pid = "integer?" },
  image_import = progress,
  image_inspect = { Id = "id" },
  image_load = progress,
  image_pull = progress,
  image_push = progress,
  info = { OSType = "string?", CgroupVersion = "string?", Runtimes = "table?" },
  network_inspect = { IPAM = fields { Config = list(fields { Gateway = "string?" }, true) } },
  network_create = { Id = "id" },
  network_list = list { Id = "id", Name = "string", Created = "time", Labels = { map = "string" } },
  version = { Version = "string" },
}

local check

local function is_text(pattern)
  return function(value) return type(value) == "string" and value:find(pattern) ~= nil and not value:find("..", 1, true) end
end

-- Types besides Lua's own. An id is used in paths of requests and names of files.
local types = {
  integer = function(value) return math.type(value) == "integer" end,
  id = is_text "^%w[%w_.:-]*$",
  time = is_text "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[%d.]*[%dZ:+-]*$",  -- RFC 3339
}

local function is(value, name)
  if types[name] then return types[name](value) end
  return type(value) == name
end

-- "missing", "a number, not a string", "no id"
local function describe(value, name)
  if value == nil then return "missing" end
  if name == "integer" and type(value) == "number" then return "no whole number within 64 bits" end
  if types[name] and name ~= "integer" and type(value) == "string" then return "no " .. name end
  return ("a %s, not %s %s"):format(type(value), name:find "^[aeiou]" and "an" or "a", name)
end

local function check_each(value, shape, path, pairs_of)
  for key, item in pairs_of(value) do
    local why = check(item, shape, ("%s[%s]"):format(path, key))
    if why then return why end
  end
end

-- nil, or the first problem and its place.
function check(value, shape, path)
  if type(shape) == "string" then
    local name, optional = shape:match "^(%a+)(%??)$"
    if optional == "?" and value == nil or is(value, name) then return nil end
    return ("%s is %s"):format(path, describe(value, name))
  end
  if shape.optional and value == nil then return nil end
  if type(value) ~= "table" then return check(value, "table", path) end
  if shape.list then return check_each(value, shape.list, path, ipairs) end
  if shape.map then return check_each(value, shape.map, path, pairs) end
  for key, one in pairs(shape.fields or shape) do
    local why = check(value[key], one, path == "it" and key or path .. "." .. key)
    if why then return why end
  end
end

--- For the `check` of docker.connect.
---@param call string   an operation's name
---@param answer any    decoded: all of it, or one document of a stream
---@return string? why  the first problem
function M.check(call, answer) return shapes[call] and check(answer, shapes[call], "it") end

return M
