--- Reads a job from JSON: the JSON form of HCL, the form of Nomad's API, or the normalised job that
--- `dockrun validate --json` prints. Gives the raw tree that schema and normalise.lua read.

local api = require "dockrun.job.api"
local json = require "dockrun.core.json"
local tree = require "dockrun.job.tree"

local M = {}

local function position(text, offset)
  local before = text:sub(1, offset - 1)
  local _, lines = before:gsub("\n", "")
  local line = before:match "[^\n]*$"
  return lines + 1, (utf8.len(line) or #line) + 1
end

---@param text string
---@return table? raw
---@return { message: string, line?: integer, column?: integer }[]? problems
function M.read(text)
  local value, err = json.decode(text)
  if err then
    local line, column
    if err.offset then line, column = position(text, err.offset) end
    return nil, { { message = "not JSON: " .. err.message:gsub(" at character %d+$", ""), line = line, column = column } }
  end
  if type(value) ~= "table" or #value > 0 then
    local line, column = position(text, text:find "%S" or 1)
    return nil, { { message = 'a job is a JSON object: {"job": {"name": { … }}}', line = line, column = column } }
  end
  local deep = tree.too_deep(value)
  if deep then return nil, { { path = deep, message = ("is nested more than %d deep"):format(tree.DEEPEST) } } end
  if api.is(value) then return { job = { api.tree(value) } } end
  if value.job == nil and value.name ~= nil then return { job = { value } } end
  return value
end

return M
