--- The scalar types of job files. Each reads a value as it stands in a file and gives the one meant, or says why not.
--- Numbers and booleans may be quoted, as in Nomad; whatever is not a string becomes one where a string is asked for.

local duration = require "dockrun.job.duration"
local json = require "dockrun.core.json"

local M = {}

local EXACT = 2 ^ 53  -- from here on a float may stand for another whole number

--- A value in a message: 'x', 5, a list, a function.
---@param value any
---@return string
function M.show(value)
  if type(value) == "string" then
    local short = #value > 60 and value:sub(1, 57) .. "..." or value
    return "'" .. short:gsub("%c", "?") .. "'"
  end
  if type(value) == "table" then return #value > 0 and "a list" or "a block" end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return "a " .. type(value)
end

local function wrong(what, value) return nil, ("must be %s, not %s"):format(what, M.show(value)) end

-- A number of Lua as text. One that Lua has rounded is an error: the file's digits are gone.
local function digits_of(value)
  local whole = math.tointeger(value)
  if whole then return ("%d"):format(whole) end
  if value ~= value or math.abs(value) >= EXACT then
    return nil, ("must be a string; Lua has rounded the number to %.17g: put it in quotes"):format(value)
  end
  return json.encode(value)
end

function M.string(value)
  local kind = type(value)
  if kind == "string" then
    if value:find("\0", 1, true) then return nil, "must not contain a NUL byte" end
    return value
  end
  if kind == "number" then return digits_of(value) end
  if kind == "boolean" then return tostring(value) end
  return wrong("a string", value)
end

function M.integer(value)
  local scalar = type(value) == "number" or type(value) == "string"
  local number = scalar and math.tointeger(tonumber(value))
  if not number then return wrong("a whole number", value) end
  return number
end

local booleans = { [true] = true, ["true"] = true, ["1"] = true, [1] = true, ["false"] = false, ["0"] = false, [0] = false }

function M.boolean(value)
  if type(value) == "boolean" then return value end
  local known = booleans[value]
  if known == nil then return wrong("true or false", value) end
  return known
end

function M.duration(value)
  if type(value) == "string" or type(value) == "number" then return duration.parse(value) end
  return wrong("a duration such as '1m30s' or a number of seconds", value)
end

--- A function: only a .lua job file can hold one.
function M.call(value)
  if type(value) ~= "function" then return wrong("a function, which only a .lua job file can hold", value) end
  return value
end

local conditions = { started = true, healthy = true, completed = true }

--- What another task must have come to.
function M.dependency(value)
  if not conditions[value] then return wrong("started, healthy or completed", value) end
  return value
end

--- A file's mode: a number as it is, or octal digits after a 0 in quotes, as chmod(1) takes them.
function M.mode(value)
  local mode
  if type(value) == "string" and value:find "^0%d" then mode = tonumber(value, 8) else mode = M.integer(value) end
  if not mode or mode < 0 or mode > 4095 then return wrong("a file's mode such as '0755'", value) end
  return mode
end

--- A host or container port.
function M.port(value)
  local port = M.integer(value)
  if not port or port < 1 or port > 65535 then return wrong("a port from 1 to 65535", value) end
  return port
end

--- The port in a container to which a port of the host leads; -1: the same as the host's.
function M.target(value)
  local port = M.integer(value)
  if not port or port ~= -1 and not M.port(port) then return wrong("a port from 1 to 65535, or -1 for the host's own", value) end
  return port
end

--- The name of a port: a number stands for the container port of that number.
function M.label(value)
  local label = M.string(value)
  if not label or not label:find "^[%w_-]+$" then return wrong("a port's label (letters, digits, '_', '-')", value) end
  if label:find "^%d+$" and not M.port(label) then return wrong("a port from 1 to 65535", value) end
  return label
end

--- The name of a job, group or task. It becomes part of a container's name, so it begins as those do.
function M.name(value)
  local name = M.string(value)
  if not name or not name:find "^%w[%w._-]*$" or #name > 128 then
    return wrong("a name (letters, digits, '.', '_', '-', at most 128, the first a letter or digit)", value)
  end
  return name
end

return M
