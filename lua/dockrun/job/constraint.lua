--- What a job asks of its host: https://developer.hashicorp.com/nomad/docs/job-specification/constraint. There is one
--- host, so a constraint that does not hold is an error of the whole job, before anything of it begins.
local interpolate = require "dockrun.job.interpolate"
local pcre = require "rex_pcre2"
local runtime = require "dockrun.core.runtime"
local versions = require "dockrun.job.version"

local M = {}

-- Numbers as numbers, all else as text.
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

-- Go's RE2 is, but for its speed, a part of PCRE. What it does in linear time may take PCRE very long: its own limit on
-- the steps of a match holds then.
local function matches(text, pattern)
  local ok, found = pcall(pcre.find, text, pattern)
  return ok and found ~= nil
end

local function meets(text, wanted, semver)
  local version, conditions = versions.parse(text), versions.conditions(wanted, semver)
  return version ~= nil and conditions ~= nil and versions.meets(version, conditions, semver)
end

-- value is nil where the host has no such attribute.
local operators = {
  ["="] = function(value, wanted) return value == wanted end,
  ["!="] = function(value, wanted) return value ~= wanted end,
  ["<"] = function(value, wanted) return value ~= nil and in_order(value, wanted) < 0 end,
  ["<="] = function(value, wanted) return value ~= nil and in_order(value, wanted) <= 0 end,
  [">"] = function(value, wanted) return value ~= nil and in_order(value, wanted) > 0 end,
  [">="] = function(value, wanted) return value ~= nil and in_order(value, wanted) >= 0 end,
  regexp = function(value, wanted) return value ~= nil and matches(value, wanted) end,
  version = function(value, wanted) return value ~= nil and meets(value, wanted) end,
  semver = function(value, wanted) return value ~= nil and meets(value, wanted, true) end,
  set_contains = function(value, wanted) return value ~= nil and contains(value, wanted, true) end,
  set_contains_any = function(value, wanted) return value ~= nil and contains(value, wanted, false) end,
  is_set = function(value) return value ~= nil end,
  is_not_set = function(value) return value == nil end,
  distinct_hosts = function() return true end,  -- there is one host, and it is chosen
  distinct_property = function() return true end,
}
for name, of in pairs {
  ["=="] = "=", is = "=", ["not"] = "!=", set_contains_all = "set_contains",
} do operators[name] = operators[of] end

--- What is wrong with a constraint as it is written.
---@param one { operator: string, value?: string }
---@return string? why
function M.problem(one)
  local value = one.value
  if not value or value:find("${", 1, true) or value:find("$attr", 1, true) then return nil end
  if one.operator == "regexp" then
    local ok, why = pcall(pcre.new, value)
    if not ok then return ("'%s' is not a regular expression: %s"):format(value, why) end
  elseif one.operator == "version" or one.operator == "semver" then
    local conditions, why = versions.conditions(value, one.operator == "semver")
    if not conditions then return why end
  end
end

-- The value that a text stands for; nil where it names what the host does not have.
local function value_of(text, context)
  if not text then return nil end
  return (interpolate.text(text, context))
end

local function check_level(level, path, context, failures)
  for i, one in ipairs(level.constraints or {}) do
    local value, wanted = value_of(one.attribute, context), value_of(one.value, context)
    if not operators[one.operator](value, wanted or "") then
      local here = value == nil and "is not known here" or ("is '%s' here"):format(value)
      local asked = one.operator .. (one.value and (" '%s'"):format(one.value) or "")
      failures[#failures + 1] = ("%s.constraint[%d]: %s %s, and must be %s"):format(path, i, one.attribute, here, asked)
    end
  end
end

--- Whether this host is as a job wants it.
---@param job table  normalised
---@param node { attr: table<string, string|number>, node: table<string, string|number> }
---@return true? ok
---@return table? err  kind "constraint": every constraint that does not hold, by its path
function M.check(job, node)
  local failures = {}
  local function check(level, path, meta)
    check_level(level, path, { attr = node.attr, node = node.node, meta = meta, env = {} }, failures)
  end
  check(job, "job." .. job.name, job.meta or {})
  for _, group in ipairs(job.groups) do
    local path = ("job.%s.group.%s"):format(job.name, group.name)
    check(group, path, group.meta or {})
    for _, task in ipairs(group.tasks) do check(task, path .. ".task." .. task.name, task.meta or {}) end
  end
  if #failures == 0 then return true end
  return nil, runtime.error("constraint", table.concat(failures, "\n"), { list = failures })
end

return M
