--- Validates the subject of a hook after the hook has run, before dockrun acts on it. Checks only what the next step needs;
--- changes nothing.
---
--- A replacement of this file must have `problem`.
local json = require "dockrun.core.json"
local tree = require "dockrun.job.tree"

-- The name of a transition -> a function that returns the first problem of its subject.
local check = {}

-- What a message calls the subject: "returned an invalid request".
local nouns = {
  received = "task", setup = "task", ports = "list of ports", pull = "image", pulled = "image", create = "request",
  prestart = "request", exited = "result", restart = "decision", kill = "signal",
}

local function show(value) return type(value) == "table" and "a table" or tostring(value) end

-- The first path in a value that is not plain data. A metatable would run the hook's code later, when dockrun reads the
-- value outside of the hook's budget.
local function not_plain(value, path, depth, functions)
  local kind, problem = type(value)
  if kind == "nil" or kind == "string" or kind == "number" or kind == "boolean" or value == json.null then return nil end
  if kind == "function" and functions then return nil end
  local function must_be_json(got) return ("%s must be JSON, got a %s"):format(path or "it", got) end
  if kind ~= "table" then return must_be_json(kind) end
  if depth > tree.DEEPEST then return ("%s is nested more than %d deep"):format(path, tree.DEEPEST) end
  if debug.getmetatable(value) and not json.is_array(value) then return must_be_json "table with a metatable" end
  for key, item in next, value do
    if type(key) ~= "string" and type(key) ~= "number" then return must_be_json(type(key) .. " as a key") end
    problem = problem or not_plain(item, path and path .. "." .. key or tostring(key), depth + 1, functions)
  end
  return problem
end

local function is_number(value) return type(value) == "number" and value >= 0 and value < math.huge end
local function is_text(value) return type(value) == "string" and value ~= "" end
local function is_port(value) return math.type(value) == "integer" and value >= 1 and value <= 65535 end

-- The first of { key, whether it is valid, what it must be } that is not valid.
local function first_problem(subject, rows)
  for _, row in ipairs(rows) do
    local key, valid, expected = row[1], row[2], row[3]
    if not valid then return ("%s must be %s, got %s"):format(key, expected, show(subject[key])) end
  end
end

function check.received() end  -- job/revalidate.lua reads the whole task again
check.setup = check.received

function check.pull(pull) return first_problem(pull, { { "image", is_text(pull.image), "an image reference" } }) end

function check.pulled(image)
  local full = type(image.reference) == "table" and image.reference.full
  return first_problem(image, { { "id", is_text(image.id), "an image's ID" }, { "reference", is_text(full), "{ full = … }" } })
end

local protocols = { tcp = true, udp = true }

function check.ports(list)
  for i, mapping in ipairs(list) do
    if type(mapping) ~= "table" then return ("mapping %d must be a table, got %s"):format(i, show(mapping)) end
    local known = type(mapping.protocols) == "table" and #mapping.protocols > 0
    for _, protocol in ipairs(known and mapping.protocols or {}) do known = known and protocols[protocol] end
    local problem = first_problem(mapping, {
      { "label", is_text(mapping.label), "a name" }, { "ip", is_text(mapping.ip), "an address" },
      { "host_port", is_port(mapping.host_port), "a port" }, { "container_port", is_port(mapping.container_port), "a port" },
      { "protocols", known, "a list of tcp and udp" },
    })
    if problem then return problem end
  end
end

function check.create(body)
  return first_problem(body, {
    { "Image", is_text(body.Image), "an image reference" }, { "Labels", type(body.Labels) == "table", "a table" },
    { "HostConfig", type(body.HostConfig) == "table", "a table" },
  })
end
check.prestart = check.create

function check.exited(result)
  local code, signal, err = result.exit_code, result.signal, result.error
  return first_problem(result, {
    { "exit_code", code == nil or math.type(code) == "integer", "an integer" },
    { "signal", signal == nil or math.type(signal) == "integer", "an integer" },
    { "oom", type(result.oom) == "boolean", "true or false" }, { "error", err == nil or type(err) == "string", "a text" },
  })
end

function check.restart(decision)
  return first_problem(decision, {
    { "restart", type(decision.restart) == "boolean", "true or false" },
    { "failed", type(decision.failed) == "boolean", "true or false" },
    { "delay", is_number(decision.delay), "a number of seconds" }, { "reason", type(decision.reason) == "string", "a text" },
  })
end

function check.kill(how)
  return first_problem(how, {
    { "signal", is_text(how.signal), "a signal's name" }, { "timeout", is_number(how.timeout), "a number of seconds" },
  })
end

local M = {}

--- The first problem of a subject after a hook, with the noun for it: "request: Labels must be a table, got 5".
---@param name string    the transition
---@param subject any
---@return string? problem  nil if it is valid
function M.problem(name, subject)
  if not check[name] then return nil end
  local why = not_plain(subject, nil, 0, check[name] == check.setup) or check[name](subject)
  return why and ("%s: %s"):format(nouns[name], why)
end

return M
