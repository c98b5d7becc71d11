--- Reads a job from JSON: the JSON form of HCL, the form of Nomad's API, or the normalised job that
--- `dockrun validate --json` prints. Gives the raw tree that normalise.lua reads.

local nomad_json = require "dockrun.job.readers.nomad_json"
local located = require "dockrun.job.readers.json.located"
local json = require "dockrun.core.json"
local line_index = require "dockrun.job.line_index"
local tree = require "dockrun.job.tree"

local M = {}

local MOST_TWICE = 1000  -- keys that appear twice, with their places in the errors

local function problem(places, offset, message)
  local line, column = places:of(offset)
  return { message = message, line = line, column = column }
end

-- The raw tree of any of the three forms.
local function tree_of(value)
  if nomad_json.is(value) then return { job = { nomad_json.tree(value) } } end
  if value.job == nil and value.name ~= nil then return { job = { value } } end
  return value
end

-- The raw tree again, with places; or the keys that appear twice. The form of Nomad's API has no places: its tree is converted.
local function read_again(text, places)
  local value, reader = located.read(text)
  local problems = {}
  for i, one in ipairs(reader.twice) do
    if i > MOST_TWICE then break end
    problems[i] = problem(places, one.at, ("'%s' is set twice; the first time at line %d, column %d"):format(one.key,
      places:of(one.first)))
  end
  if #problems > 0 then return nil, problems end
  return tree_of(value), function(holder, key)
    local at = reader.places[holder] and reader.places[holder][key]
    if not at then return nil end
    local line, column = places:of(at)
    return line, column
  end
end

---@param text string
---@return table? raw
---@return (fun(): table, HclLocate)|{ message: string, path?: string, line?: integer, column?: integer }[] again
function M.read(text)
  local places = line_index.new(text)
  local value, err = json.decode(text, true)
  if type(value) == "table" and nomad_json.is(value) then value = json.decode(text) end  -- its durations are numbers
  if err then
    local message = "not JSON: " .. err.message:gsub(" at character %d+$", "")
    return nil, { problem(places, err.offset or 1, message) }  -- without an offset, the start of the text is wrong, as in UTF-16
  end
  if type(value) ~= "table" or #value > 0 then
    return nil, { problem(places, text:find "%S" or 1, 'a job is a JSON object: {"job": {"name": { … }}}') }
  end
  local deep, keys = tree.measure(value)
  if deep then return nil, { { path = deep, message = ("is nested more than %d deep"):format(tree.DEEPEST) } } end
  if located.has_twice(text, keys) then
    local raw, problems = read_again(text, places)
    if not raw then return nil, problems end
  end
  return tree_of(value), function() return read_again(text, places) end
end

return M
