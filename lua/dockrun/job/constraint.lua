--- Checks the constraints of a job against the host: https://developer.hashicorp.com/nomad/docs/job-specification/constraint.
--- There is one host, so a constraint that fails is an error of the whole job, before anything of it starts.
---
--- A replacement of this file must have `problem` and `failures`.

local validators = require "dockrun.job.validators"
local interpolate = require "dockrun.job.interpolate"
local pcre = require "rex_pcre2"
local versions = require "dockrun.job.version"
local tables = require "dockrun.util.tables"

local M = {}

-- Compares numbers as numbers, anything else as text.
local function in_order(a, b)
  local x, y = tonumber(a), tonumber(b)
  if x and y then return x < y and -1 or x > y and 1 or 0 end
  return a < b and -1 or a > b and 1 or 0
end

local function members(text)
  local set = {}
  for member in (text .. ","):gmatch "%s*(.-)%s*," do set[member] = true end
  return set
end

local function contains(text, wanted, all)
  local set, any = members(text), false
  for member in pairs(members(wanted)) do
    if set[member] then any = true elseif all then return false end
  end
  return any
end

-- Each expression of Go's RE2 means the same to PCRE with these flags: text is UTF-8, and "$" is the very end.
local AS_GO = pcre.flags().UTF | pcre.flags().DOLLAR_ENDONLY

-- RE2 takes linear time, PCRE may take exponential time: PCRE's own limit of 10 million steps then ends the match.
local function matches(text, pattern)
  local ok, found = pcall(pcre.find, text, pattern, 1, AS_GO)
  if ok then return found ~= nil end
  return false, found:find "MATCHLIMIT" and "the expression takes too many steps" or found
end

local function meets(text, wanted, semver)
  local version = versions.parse(text)
  if not version then return false, "it is not a version" end
  local conditions, why = versions.conditions(wanted, semver)
  if not conditions then return false, why end
  return versions.meets(version, conditions, semver)
end

-- An operator on the value of an attribute: it fails if the host does not have the attribute (nil).
local function of_a_value(holds)
  return function(value, wanted)
    if value == nil then return false end
    return holds(value, wanted)
  end
end

-- operator -> whether it holds, and a reason if the two values do not explain the failure.
---@type table<string, fun(value?: string, wanted?: string): boolean, string?>
local operators = {
  ["="] = function(value, wanted) return value == wanted end,
  ["!="] = function(value, wanted) return value ~= wanted end,
  ["<"] = of_a_value(function(value, wanted) return in_order(value, wanted) < 0 end),
  ["<="] = of_a_value(function(value, wanted) return in_order(value, wanted) <= 0 end),
  [">"] = of_a_value(function(value, wanted) return in_order(value, wanted) > 0 end),
  [">="] = of_a_value(function(value, wanted) return in_order(value, wanted) >= 0 end),
  regexp = of_a_value(matches),
  version = of_a_value(meets),
  semver = of_a_value(function(value, wanted) return meets(value, wanted, true) end),
  set_contains = of_a_value(function(value, wanted) return contains(value, wanted, true) end),
  set_contains_any = of_a_value(function(value, wanted) return contains(value, wanted, false) end),
  is_set = function(value) return value ~= nil end,
  is_not_set = function(value) return value == nil end,
  distinct_hosts = function() return true end,  -- there is one host
  distinct_property = function() return true end,
}
for name, of in pairs {
  ["=="] = "=", is = "=", ["not"] = "!=", set_contains_all = "set_contains",
} do operators[name] = operators[of] end

--- The problem of a constraint as it is written, without a host.
---@param one { operator: string, value?: string }
---@return string? why
function M.problem(one)
  local value = one.value
  if not value or validators.is_open(value) then return nil end
  if one.operator == "regexp" then
    local ok, why = pcall(pcre.new, value, AS_GO)
    if not ok then return ("'%s' is not a regular expression: %s"):format(value, why) end
  elseif one.operator == "version" or one.operator == "semver" then
    local conditions, why = versions.conditions(value, one.operator == "semver")
    if not conditions then return why end
  end
end

-- The value of a text; nil if the host does not have a name in it. A text may be one name without braces, as in Nomad 0.1.
local function value_of(text, context)
  if not text then return nil end
  return (interpolate.text(text:gsub("^%$(%l+%.[%w_.-]+)$", "${%1}"), context))
end

-- Why a constraint fails; nil if it holds.
local function failure(one, context)
  local value, wanted = value_of(one.attribute, context), value_of(one.value, context)
  if one.value and not wanted then return ("the value %s is unknown on this host"):format(one.value) end
  local ok, why = operators[one.operator](value, wanted)
  if ok then return nil end
  local here = value == nil and "is unknown on this host" or ("is '%s' on this host"):format(value)
  local asked = one.operator .. (wanted and (" '%s'"):format(wanted) or "")
  return ("%s %s, but must be %s%s"):format(one.attribute, here, asked, why and " (" .. why .. ")" or "")
end

--- Every constraint of a job that this host does not meet.
---@param job table  normalised
---@param node { attr: table<string, string|number>, node: table<string, string|number> }
---@return { path: string, message: string }[] failures
function M.failures(job, node)
  local failures = {}
  local function check(level, path, meta)
    local context = { attr = node.attr, node = node.node, meta = meta }
    for i, one in ipairs(level.constraints or {}) do
      local why = failure(one, context)
      if why then failures[#failures + 1] = { path = ("%s.constraint[%d]"):format(path, i), message = why } end
    end
  end
  check(job, "job." .. job.name, job.meta or {})
  for _, group in ipairs(job.groups) do
    local path, meta = ("job.%s.group.%s"):format(job.name, group.name), tables.merge(job.meta, group.meta)
    check(group, path, meta)
    for _, task in ipairs(group.tasks) do check(task, path .. ".task." .. task.name, tables.merge(meta, task.meta)) end
  end
  return failures
end

return M
