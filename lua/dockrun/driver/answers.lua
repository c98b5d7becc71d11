-- What the engine's answers must hold for the policy to work with them: whatever stands behind the socket, nothing else
-- of dockrun meets a field of another type than the Engine API (v1.41) gives it.
local M = {}

-- A shape is the name of a type, "?" after it where the field may be absent; a table of shapes by field; or list(shape).
-- Lists and maps are both "table". What is not named is not looked at.
local function list(shape, optional) return { list = shape, optional = optional } end
local function fields(shape) return { fields = shape, optional = true } end

local shapes = {
  container_create = { Id = "string", Warnings = list("string", true) },
  container_inspect = {
    Id = "string", Name = "string?", Image = "string", RestartCount = "integer?", HostConfig = "table",
    State = {
      Status = "string", Running = "boolean", Paused = "boolean?", Restarting = "boolean?", OOMKilled = "boolean?", Pid = "integer?",
      ExitCode = "integer", Error = "string?", StartedAt = "string?", FinishedAt = "string?", Health = fields { Status = "string?" },
    },
    Config = { Image = "string", Tty = "boolean?", Labels = { map = "string", optional = true } },
    NetworkSettings = fields { Networks = { map = fields { GlobalIPv6Address = "string?" }, optional = true } },
  },
  container_list = list {
    Id = "string", Image = "string?", Names = list("string", true), Labels = { map = "string", optional = true },
    Ports = list({ PublicPort = "integer?" }, true),
  },
  container_update = { Warnings = list("string", true) },
  exec_create = { Id = "string" },
  exec_inspect = { Running = "boolean?", ExitCode = "integer?" },
  image_inspect = { Id = "string" },
  info = { OSType = "string?", CgroupVersion = "string?", Runtimes = "table?" },
  network_inspect = { IPAM = fields { Config = list(fields { Gateway = "string?" }, true) } },
  network_list = list { Id = "string", Name = "string", Created = "string", Labels = { map = "string" } },
  version = { Version = "string" },
}

local check

local function is(value, name)
  if name == "integer" then return math.type(value) == "integer" end
  return type(value) == name
end

local function check_each(value, shape, path, pairs_of)
  for key, item in pairs_of(value) do
    local why = check(item, shape, ("%s[%s]"):format(path, key))
    if why then return why end
  end
end

-- nil, or what is wrong at which place.
function check(value, shape, path)
  if type(shape) == "string" then
    local name, optional = shape:match "^(%a+)(%??)$"
    if optional == "?" and value == nil or is(value, name) then return nil end
    return ("%s is %s, not a %s"):format(path, value == nil and "missing" or "a " .. type(value), name)
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
---@param call string   an endpoint's name
---@param answer any    decoded
---@return string? why  what of it is not as it should be
function M.check(call, answer) return shapes[call] and check(answer, shapes[call], "it") end

return M
