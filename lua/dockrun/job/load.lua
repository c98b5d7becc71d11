--- From a job file to one normalised job, or all that is wrong with it.
---
--- A reader gives a raw tree of plain tables (and, where it knows them, the places of its values); normalise.lua and
--- schema.lua do the rest, the same for every format.

local normalise = require "dockrun.job.normalise"
local problems = require "dockrun.job.problems"
local textfile = require "dockrun.util.textfile"

local M = {}

-- Each has `read(text, name, opts) -> raw, again? | nil, problems`, where `again() -> raw, locate` and
-- `locate(table, key) -> line, column`: places cost more than all the rest, and only what is wrong needs them.
local readers = {
  lua = "dockrun.job.lua", json = "dockrun.job.json", hcl = "dockrun.job.hcl", nomad = "dockrun.job.hcl",
}

local LONGEST = 8 << 20  -- bytes of a job file

---@class LoadOptions
---@field vars? table<string, any>  `var.NAME` in a .lua file
---@field runtime? table            what hooks find as `dockrun`
---@field instructions? integer     limits for a .lua file, see sandbox.lua: 10 million
---@field memory? number            MB: 64

local function fail(file, message, line, column)
  local found = problems.new(file)
  found:add(nil, message, line, column)
  return nil, found:error()
end

local function formats()
  local names = {}
  for name in pairs(readers) do names[#names + 1] = "." .. name end
  table.sort(names)
  return table.concat(names, ", ")
end

-- Nearly all that normalising makes is kept: looking for garbage meanwhile would be half of the time.
local function without_collector()
  local running = collectgarbage "isrunning"
  collectgarbage "stop"
  return setmetatable({}, { __close = function() if running then collectgarbage "restart" end end })
end

--- Reads a job from text.
---@param text string
---@param format "lua"|"json"|"hcl"|"nomad"
---@param name? string        for messages, such as the file's path
---@param opts? LoadOptions
---@return table? job         its `warnings` are "path: message" each
---@return SpecError? err     every error, with key paths and lines
function M.string(text, format, name, opts)
  local module = readers[format]
  assert(module, ("no job format is called '%s'"):format(tostring(format)))
  if #text > LONGEST then return fail(name, ("a job file has at most %d bytes"):format(LONGEST)) end
  local _ <close> = without_collector()
  text = text:gsub("^\xEF\xBB\xBF", "")  -- the mark that some editors put before UTF-8
  local raw, again = require(module).read(text, name or "job", opts or {})
  local found = problems.new(name)
  if not raw then
    for _, problem in ipairs(again) do found:add(problem.path, problem.message, problem.line, problem.column) end
    return nil, found:error()
  end
  local job = normalise.job(raw, found)
  if job or not again then return job, found:error() end
  found = problems.new(name)
  local locate
  raw, locate = again()
  normalise.job(raw, found, locate)
  return nil, found:error()
end

---@class JobSource
---@field format string  a key of `readers`
---@field name string    the file's path
---@field text string
---@field vars? table<string, string>

--- The text of a job file. Its ending tells the format.
---@param path string
---@return JobSource? source
---@return SpecError? err
function M.read(path)
  local format = path:match "%.(%w+)$"
  if not readers[format] then return fail(path, "not a job file by its ending; known: " .. formats()) end
  local text, why = textfile.read(path, LONGEST)
  if not text then return fail(nil, "cannot read the job: " .. why) end
  return { format = format, name = path, text = text }
end

-- Whether it is a JobSource: it may come from another process.
local function is_source(source)
  if type(source) ~= "table" or not readers[source.format] then return false end
  if type(source.text) ~= "string" or type(source.name) ~= "string" then return false end
  if source.vars ~= nil and type(source.vars) ~= "table" then return false end
  for name, value in pairs(source.vars or {}) do
    if type(name) ~= "string" or type(value) ~= "string" then return false end
  end
  return true
end

--- Reads a job from what was read of its file.
---@param source JobSource
---@param runtime? table  see LoadOptions
---@return table? job
---@return SpecError? err
function M.source(source, runtime)
  if not is_source(source) then return fail(nil, "this is no job: expected the format, the name and the text of a file") end
  return M.string(source.text, source.format, source.name, { vars = source.vars, runtime = runtime })
end

--- Reads a job file.
---@param path string
---@param opts? LoadOptions
---@return table? job
---@return SpecError? err
function M.file(path, opts)
  local source, err = M.read(path)
  if not source then return nil, err end
  return M.string(source.text, source.format, path, opts)
end

return M
