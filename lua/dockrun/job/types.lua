--- The scalar types of a row (`type`, `of`). Each converts a value of a file: "5" -> 5 for an integer, 5 -> "5" for a string,
--- or gives nil and the reason. Numbers and booleans may be quoted, as in Nomad. validators.lua checks the converted value.

local duration = require "dockrun.job.duration"
local json = require "dockrun.core.json"

local M = {}

local EXACT = 2 ^ 53  -- from here on a float may be a rounded integer

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

local function expected(what, value) return nil, ("must be %s, got %s"):format(what, M.show(value)) end

-- A number as text. A number that Lua has rounded is an error: the digits of the file are lost.
local function digits_of(value)
  local whole = math.tointeger(value)
  if whole then return ("%d"):format(whole) end
  if value ~= value or math.abs(value) >= EXACT then
    return nil, ("must be a string, got a number that Lua rounds to %.17g; put it in quotes"):format(value)
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
  return expected("a string", value)
end

function M.integer(value)
  local scalar = type(value) == "number" or type(value) == "string"
  local number = scalar and math.tointeger(tonumber(value))
  if not number then return expected("a whole number", value) end
  return number
end

local booleans = { [true] = true, ["true"] = true, ["1"] = true, [1] = true, ["false"] = false, ["0"] = false, [0] = false }

function M.boolean(value)
  if type(value) == "boolean" then return value end
  local known = booleans[value]
  if known == nil then return expected("true or false", value) end
  return known
end

function M.duration(value)
  if type(value) == "string" or type(value) == "number" then return duration.parse(value) end
  return expected("a duration such as '1m30s' or a number of seconds", value)
end

--- A function: only a .lua job file can hold one.
function M.call(value)
  if type(value) ~= "function" then return expected("a function, which only a .lua job file can have", value) end
  return value
end

local conditions = { started = true, healthy = true, completed = true }

--- The state of another task that a task waits for.
function M.dependency(value)
  if not conditions[value] then return expected("started, healthy or completed", value) end
  return value
end

--- A file's mode: a number as it is, or octal digits after a 0 in quotes, as chmod(1) takes them.
function M.mode(value)
  local mode
  if type(value) == "string" and value:find "^0%d" then mode = tonumber(value, 8) else mode = M.integer(value) end
  if not mode or mode < 0 or mode > 4095 then return expected("a file's mode such as '0755'", value) end
  return mode
end

--- A host or container port.
function M.port(value)
  local port = M.integer(value)
  if not port or port < 1 or port > 65535 then return expected("a port from 1 to 65535", value) end
  return port
end

--- The port of a container for a port of the host; -1: the same number as on the host.
function M.target(value)
  local port = M.integer(value)
  if not port or port ~= -1 and not M.port(port) then return expected("a port from 1 to 65535, or -1 for the port of the host", value) end
  return port
end

--- The label of a port. A number means the container port of that number.
function M.label(value)
  local label = M.string(value)
  if not label or not label:find "^[%w_-]+$" then return expected("a port's label (letters, digits, '_', '-')", value) end
  if label:find "^%d+$" and not M.port(label) then return expected("a port from 1 to 65535", value) end
  return label
end

--- The name of a job, group or task. It becomes part of a container's name, so it begins as those do.
function M.name(value)
  local name = M.string(value)
  if not name or not name:find "^%w[%w._-]*$" or #name > 128 then
    return expected("a name (letters, digits, '.', '_', '-', at most 128, the first a letter or digit)", value)
  end
  return name
end

return M
