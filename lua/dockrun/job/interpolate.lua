--- `${…}` in the strings of a task: names of the node, the job and the task's environment.
---
--- `${NOMAD_…}`, `${env.NAME}` and `${NAME}` are the task's environment, as in Nomad; `${attr.…}` and `${node.…}` are the
--- node's; `${meta.KEY}` is the meta of the job, its group and task. `$attr.…` without braces is Nomad 0.1's form. So are
--- `$node.…`, `$meta.…` and `$NOMAD_…` if there is such a name; otherwise they may be meant for a shell, and are kept.
--- `$${` is a literal `${`, and `$$attr.` a literal `$attr.`. "port ${NOMAD_PORT_web}" -> "port 20000".
---
--- A replacement of this file must have `text` and `task`.

local suggest = require "dockrun.job.suggest"
local diagnostics = require "dockrun.job.diagnostics"
local schema = require "dockrun.job.schema"
local tables = require "dockrun.util.tables"

local M = {}

---@class InterpolateContext
---@field env? table<string, string>      see task/env.lua; values may hold `${…}` in turn
---@field attr? table<string, string|number>  by dotted name, see driver/fingerprint.lua
---@field node? table<string, string|number>
---@field meta? table<string, string>    values may hold `${…}` too
---@field path? string                    the task's key path, for errors; "task.NAME" if left out

local kinds = { "attr", "env", "meta", "node" }

-- "attr.kernel.name", 'meta["a.b"]', "NOMAD_IP" -> the kind of name, and the name
local function parse(name)
  if name:find "^NOMAD_" or name:find "^[%a_][%w_]*$" then return "env", name end
  local kind, key = name:match "^(%a+)%.(.+)$"
  if not kind then kind, key = name:match '^(%a+)%["(.*)"%]$' end
  return kind, key
end

-- The nearest known name: of the same kind, or of any kind if the kind is unknown.
local function near(name, context)
  local kind, key = parse(name)
  if context[kind] then
    local meant = suggest.word(key, tables.keys(context[kind]))
    return meant and (meant:find "^NOMAD_" and meant or kind .. "." .. meant)
  end
  local names = {}
  for _, other in ipairs(kinds) do
    for _, one in ipairs(tables.keys(context[other] or {})) do names[#names + 1] = other .. "." .. one end
  end
  return suggest.word(name, names)
end

local function unknown(name, context)
  local meant = near(name, context)
  local hint = meant and ("did you mean '${%s}'?"):format(meant) or ("write '$${%s}' for the text itself"):format(name)
  return ("unknown name '${%s}'; %s"):format(name, hint)
end

local LONGEST = 1 << 20  -- bytes of one interpolated string: names may refer to names, each several times

local fill

-- The text of a name. `known` has the names that were looked up, and false for those being looked up: a name must not refer
-- to itself.
local function lookup(name, context, known)
  local kind, key = parse(name)
  local value = kind and context[kind] and context[kind][key]
  if value == nil then return nil, unknown(name, context) end
  if kind ~= "env" and kind ~= "meta" then return tostring(value) end
  local id = kind .. "." .. key
  if known[id] == false then return nil, ("'${%s}' refers to itself"):format(name) end
  if known[id] then return known[id] end
  known[id] = false
  local text, why = fill(tostring(value), context, known)
  known[id] = text
  return text, why
end

-- The name after a "$", and the byte after the name.
local function bare(text, from, context)
  local name, after = text:match("^%${([^}]*)}()", from)
  if not name then name, after = text:match("^%$(attr%.[%w_.-]*[%w_-])()", from) end
  if name then return name, after end
  for _, pattern in ipairs { "^%$(NOMAD_[%w_]+)()", "^%$(node%.[%w_.-]*[%w_-])()", "^%$(meta%.[%w_.-]*[%w_-])()" } do
    name, after = text:match(pattern, from)
    local kind, key
    if name then kind, key = parse(name) end
    if kind and context[kind] and context[kind][key] ~= nil then return name, after end
  end
end

--- Fills in one string.
---@param text string
---@param context InterpolateContext
---@param known table<string, string|false>
---@return string? text
---@return string? why
function fill(text, context, known)
  local parts, at, length = {}, 1, #text
  while true do
    local from = text:find("$", at, true)
    if not from then break end
    parts[#parts + 1] = text:sub(at, from - 1)
    local escaped = text:match("^%$%$({)", from) or text:match("^%$%$(attr%.)", from)
    local name, after = bare(text, from, context)
    if escaped then
      parts[#parts + 1], at = "$" .. escaped, from + 2 + #escaped
    elseif name then
      local value, why = lookup(name, context, known)
      if not value then return nil, why end
      length = length + #value
      if length > LONGEST then return nil, ("'${%s}' makes a string of more than %d bytes"):format(name, LONGEST) end
      parts[#parts + 1], at = value, after
    else
      parts[#parts + 1], at = "$", from + 1
    end
  end
  parts[#parts + 1] = text:sub(at)
  return table.concat(parts)
end

--- One text with every name filled in.
---@param text string
---@param context InterpolateContext
---@return string? text
---@return string? why not
function M.text(text, context) return fill(text, context, {}) end

local function walk(value, context, path, known, found)
  if type(value) == "string" then
    local text, why = fill(value, context, known)
    if not text then found:add(path, why) end
    return text or value
  end
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for _, key in ipairs(tables.keys(value)) do
    local here = type(key) == "number" and ("%s[%s]"):format(path, key) or ("%s.%s"):format(path, key)
    copy[key] = walk(value[key], context, here, known, found)
  end
  return copy
end

-- constraint.lua interpolates constraints itself; keys that are not used are kept as written.
local literal = { constraints = true }
for _, row in ipairs(schema.task) do literal[row.name] = literal[row.name] or row.unused end

--- A task with every name filled in, except in constraints and in keys that are not used.
---@param task table                    normalised; it is not changed
---@param context InterpolateContext
---@return table? task                  a new one
---@return SpecError? err               every unknown name, with its key path
---@return table? rest                  if there is an error: the task with the known names filled in
function M.task(task, context)
  local found, known, copy = diagnostics.new(), {}, {}
  local path = context.path or "task." .. task.name
  for _, key in ipairs(tables.keys(task)) do
    copy[key] = literal[key] and task[key] or walk(task[key], context, path .. "." .. key, known, found)
  end
  local err = found:error()
  if err then return nil, err, copy end
  return copy
end

return M
