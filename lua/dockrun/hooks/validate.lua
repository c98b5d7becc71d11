--- What hooks may make of the things that they are given. What is wrong is said before anything comes of it.
local json = require "dockrun.core.json"
local tree = require "dockrun.job.tree"

local check = {}

local function show(value) return type(value) == "table" and "a table" or tostring(value) end

-- Where a value holds what is not plain data, with or without functions: no code of a stranger's is to run because
-- somebody reads it.
local function not_plain(value, path, depth, functions)
  local kind = type(value)
  if kind == "nil" or kind == "string" or kind == "number" or kind == "boolean" or value == json.null then return nil end
  if kind == "function" and functions then return nil end
  if kind ~= "table" then return ("%s is a %s, not JSON"):format(path, kind) end
  if depth > tree.DEEPEST then return ("%s is nested too deeply"):format(path) end
  if debug.getmetatable(value) and not json.is_array(value) then return ("%s has a metatable, and is not JSON"):format(path) end
  for key, item in next, value do
    if type(key) ~= "string" and type(key) ~= "number" then return ("%s has a %s as a key, not JSON"):format(path, type(key)) end
    local problem = not_plain(item, path .. "." .. key, depth + 1, functions)
    if problem then return problem end
  end
end

local function is_number(value) return type(value) == "number" and value >= 0 and value < math.huge end
local function is_text(value) return type(value) == "string" and value ~= "" end
local function is_port(value) return math.type(value) == "integer" and value >= 1 and value <= 65535 end

-- The first of { key, whether it is right, what it must be } that is not.
local function first_wrong(thing, rows)
  for _, row in ipairs(rows) do
    local key, right, must = row[1], row[2], row[3]
    if not right then return ("%s must be %s, not %s"):format(key, must, show(thing[key])) end
  end
end

function check.received() end  -- see job/reread.lua
check.setup = check.received

function check.pull(thing) return first_wrong(thing, { { "image", is_text(thing.image), "an image reference" } }) end

function check.pulled(image)
  local full = type(image.reference) == "table" and image.reference.full
  return first_wrong(image, { { "id", is_text(image.id), "an image's ID" }, { "reference", is_text(full), "{ full = … }" } })
end

local protocols = { tcp = true, udp = true }

function check.ports(list)
  for i, mapping in ipairs(list) do
    if type(mapping) ~= "table" then return ("the mapping %d must be a table, not %s"):format(i, show(mapping)) end
    local known = type(mapping.protocols) == "table" and #mapping.protocols > 0
    for _, protocol in ipairs(known and mapping.protocols or {}) do known = known and protocols[protocol] end
    local wrong = first_wrong(mapping, {
      { "label", is_text(mapping.label), "a name" }, { "ip", is_text(mapping.ip), "an address" },
      { "host_port", is_port(mapping.host_port), "a port" }, { "container_port", is_port(mapping.container_port), "a port" },
      { "protocols", known, "a list of tcp and udp" },
    })
    if wrong then return wrong end
  end
end

function check.create(body)
  return first_wrong(body, {
    { "Image", is_text(body.Image), "an image reference" }, { "Labels", type(body.Labels) == "table", "a table" },
    { "HostConfig", type(body.HostConfig) == "table", "a table" },
  })
end
check.prestart = check.create

function check.exited(result)
  local code, signal, err = result.exit_code, result.signal, result.error
  return first_wrong(result, {
    { "exit_code", code == nil or math.type(code) == "integer", "an integer" },
    { "signal", signal == nil or math.type(signal) == "integer", "an integer" },
    { "oom", type(result.oom) == "boolean", "true or false" }, { "error", err == nil or type(err) == "string", "a text" },
  })
end

function check.restart(decision)
  return first_wrong(decision, {
    { "restart", type(decision.restart) == "boolean", "true or false" },
    { "failed", type(decision.failed) == "boolean", "true or false" },
    { "delay", is_number(decision.delay), "a number of seconds" }, { "reason", type(decision.reason) == "string", "a text" },
  })
end

function check.kill(how)
  return first_wrong(how, {
    { "signal", is_text(how.signal), "a signal's name" }, { "timeout", is_number(how.timeout), "a number of seconds" },
  })
end

local M = {}

--- What is wrong with a thing after a hook of this name; nil where nothing is.
---@param name string
---@param thing any
---@return string?
function M.problem(name, thing)
  if not check[name] then return nil end
  return not_plain(thing, "it", 0, check[name] == check.setup) or check[name](thing)
end

return M
