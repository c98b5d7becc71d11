--- Loads a job file: text -> one normalised job, or all its errors. The reader of the format gives a raw tree of plain
--- tables; normalise.lua and schema/ do the rest, the same for every format. Only reads text: never looks at the engine or
--- the host, and starts nothing.
---
--- A replacement of this file must have `string`, `read`, `source` and `file`.

local budgets = require "dockrun.core.budget"
local normalise = require "dockrun.job.normalise"
local diagnostics = require "dockrun.job.diagnostics"
local defaults = require "dockrun.job.limits"
local fs = require "dockrun.util.fs"

local M = {}

-- Each has `read(text, name, opts) -> raw, again? | nil, problems`. `again() -> raw, locate` reads the text again with
-- `locate(table, key) -> line, column`: places cost more than all the rest, and only a file with errors needs them.
local readers = {
  lua = "dockrun.job.readers.lua", json = "dockrun.job.readers.json", hcl = "dockrun.job.readers.hcl", nomad = "dockrun.job.readers.hcl",
}

---@class LoadOptions
---@field options? table<string, any>  `limits.…`, see options.lua; left out, those of `runtime`, or the defaults
---@field recorded? boolean         the job runs already: no limit on its allocations
---@field vars? table<string, any>  `var.NAME` in a .lua file
---@field runtime? table            the value of `dockrun` in hooks
---@field instructions? integer     budget of a .lua file, see sandbox/chunk.lua: 10 million
---@field memory? number            MB: 64

local function fail(file, message, line, column)
  local found = diagnostics.new(file)
  found:add(nil, message, line, column)
  return nil, found:error()
end

local function formats()
  local names = {}
  for name in pairs(readers) do names[#names + 1] = "." .. name end
  table.sort(names)
  return table.concat(names, ", ")
end

-- The value of the option limits.NAME.
local function limit(opts, name)
  local options = opts.options or opts.runtime and opts.runtime.options
  return options and options["limits." .. name] or defaults[name]
end

local function too_long(file, opts)
  return fail(file, ("a job file must have at most %d bytes (limits.job_bytes)"):format(limit(opts, "job_bytes")))
end

-- Calls fn under a limit of processor time. Passes its errors on; nil, "seconds" if it took too long.
local function in_time(seconds, fn)
  if seconds == math.huge then return fn() end
  local budget <close> = budgets.new { seconds = seconds }
  local co = coroutine.create(fn)
  budget:watch(co)
  local results = table.pack(coroutine.resume(co))
  if not results[1] and budget:passed() == "seconds" and type(results[2]) == "string" then return nil, "seconds" end
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

-- The job of a reader's raw tree, or all its errors.
local function normalised(raw, again, name, limits)
  local found = diagnostics.new(name, limits)
  if not raw then
    for _, problem in ipairs(again) do found:add(problem.path, problem.message, problem.line, problem.column) end
    return nil, found:error()
  end
  local job = normalise.job(raw, found)
  if job or not again then return job, found:error() end
  found = diagnostics.new(name, limits)
  local locate
  raw, locate = again()
  normalise.job(raw, found, locate)
  return nil, found:error()
end

--- Loads a job from text.
---@param text string
---@param format "lua"|"json"|"hcl"|"nomad"
---@param name? string        for messages, such as the file's path
---@param opts? LoadOptions
---@return table? job         its `warnings` are "path: message" each
---@return SpecError? err     every error, with its key path and line
function M.string(text, format, name, opts)
  local module = readers[format]
  assert(module, ("no job format is called '%s'"):format(tostring(format)))
  opts = opts or {}
  if #text > limit(opts, "job_bytes") then return too_long(name, opts) end
  text = text:gsub("^\xEF\xBB\xBF", "")  -- the byte order mark that some editors write
  local reader, seconds = require(module), limit(opts, "job_seconds")
  local function read() return reader.read(text, name or "job", opts) end
  local raw, again
  if reader.has_limits then raw, again = read() else raw, again = in_time(seconds, read) end
  local job, err
  if again ~= "seconds" then
    job, err = in_time(seconds, function() return normalised(raw, again, name, {
      problems = limit(opts, "problems"), allocs = not opts.recorded and limit(opts, "allocs_per_job") or nil,
    }) end)
  end
  if again ~= "seconds" and err ~= "seconds" then return job, err end
  return fail(name, ("reading it took more than %g s of processor time (limits.job_seconds)"):format(seconds))
end

---@class JobSource
---@field format string  a key of `readers`
---@field name string    the file's path
---@field text string
---@field vars? table<string, string>

--- Reads the text of a job file. The ending of its name is the format.
---@param path string
---@param opts? LoadOptions
---@return JobSource? source
---@return SpecError? err
function M.read(path, opts)
  opts = opts or {}
  local format = path:match "%.(%w+)$"
  if not readers[format] then return fail(path, "not a job file: expected an ending of " .. formats()) end
  local text, why = fs.read_any(path, limit(opts, "job_bytes"))
  if not text then return fail(nil, "cannot read the job: " .. why) end
  return { format = format, name = path, text = text }
end

-- Whether a value is a JobSource. It may come from another process.
local function is_source(source)
  if type(source) ~= "table" or not readers[source.format] then return false end
  if type(source.text) ~= "string" or type(source.name) ~= "string" then return false end
  if source.vars ~= nil and type(source.vars) ~= "table" then return false end
  for name, value in pairs(source.vars or {}) do
    if type(name) ~= "string" or type(value) ~= "string" then return false end
  end
  return true
end

--- Loads a job from the result of `read`.
---@param source JobSource
---@param runtime? table      see LoadOptions
---@param recorded? boolean
---@return table? job
---@return SpecError? err
function M.source(source, runtime, recorded)
  if not is_source(source) then return fail(nil, "not a job: expected the format, the name and the text of a file") end
  return M.string(source.text, source.format, source.name, { vars = source.vars, runtime = runtime, recorded = recorded })
end

--- Loads a job file.
---@param path string
---@param opts? LoadOptions
---@return table? job
---@return SpecError? err
function M.file(path, opts)
  local source, err = M.read(path, opts)
  if not source then return nil, err end
  return M.string(source.text, source.format, path, opts)
end

return M
