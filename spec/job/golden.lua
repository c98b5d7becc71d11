-- What the corpus expects, in a form to read and to keep: a job without what every job says that says nothing, so that a
-- new key of the schema changes no golden, and errors without the lists of known keys, which grow with it.
local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local tree = require "dockrun.job.tree"
local tables = require "dockrun.util.tables"

local M = {}

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

-- The least that a job of a type can say: one group with one task of an image.
local function silent(kind)
  local job = assert(load.string(json.encode { name = "j", type = kind, task = { t = { config = { image = "i" } } } }, "json"))
  local group = job.groups[1]
  local task = group.tasks[1]
  job.name, job.type, group.name, task.name, task.config.image = nil, "service", nil, nil, nil
  return job
end

-- Each of a list is held against the one that the silent job has.
local lists = { groups = true, tasks = true }

local function beyond(value, usual, key)
  if type(value) == "function" then return "function" end  -- as `dockrun validate --json` prints it
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for name, item in pairs(value) do
    local other
    if type(usual) == "table" then other = usual[lists[key] and 1 or name] end
    if lists[key] or not same(item, other) then copy[name] = beyond(item, other, name) end
  end
  return copy
end

local function encode(value) return (json.encode(value):gsub("\\/", "/")) end

local function write(value, indent)
  if type(value) ~= "table" or next(value) == nil then return encode(value) end
  local list, parts, inner = tree.is_list(value), {}, indent .. "  "
  for _, key in ipairs(tables.keys(value)) do
    parts[#parts + 1] = (list and "" or encode(key) .. ": ") .. write(value[key], inner)
  end
  local open, close, flat = list and "[" or "{", list and "]" or "}", table.concat(parts, ", ")
  if #flat + #indent < 100 and not flat:find "\n" then return open .. " " .. flat .. " " .. close end
  return open .. "\n" .. inner .. table.concat(parts, ",\n" .. inner) .. "\n" .. indent .. close
end

--- A job as its golden holds it: JSON, with sorted keys.
---@param job table
---@return string
function M.job(job) return write(beyond(job, silent(job.type)), "") .. "\n" end

--- Errors as their golden holds them.
---@param err SpecError
---@return string
function M.errors(err) return tostring(err):gsub("; known: [^\n]*", "; known: …") .. "\n" end

return M
