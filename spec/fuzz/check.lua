--- One case of the fuzzer: a seed gives a job, its texts and what must be true of them.

local json = require "dockrun.core.json"
local load = require "dockrun.job.load"
local model = require "spec.fuzz.model"
local mutate = require "spec.fuzz.mutate"
local random = require "spec.fuzz.random"
local write = require "spec.fuzz.write"

local M = {}

M.readers = { "hcl", "json", "lua" }

local SLOWEST = 5  -- seconds of the processor for one file

-- Enough for any of these files, so that an endless one is stopped early.
local LIMITS = { instructions = 300000 }

---@class FuzzFailure
---@field message string
---@field text string
---@field format string

local function fail(message, ...) error({ message = message:format(...) }, 0) end

-- Calls a function that must neither raise an error nor take long.
local function bounded(what, call, ...)
  local deadline = os.clock() + SLOWEST
  debug.sethook(function()
    if os.clock() > deadline then
      debug.sethook()
      error(("it took more than %d seconds"):format(SLOWEST), 0)
    end
  end, "", 1000000)
  local result = table.pack(xpcall(call, debug.traceback, ...))
  debug.sethook()
  if not result[1] then fail("%s: %s", what, result[2]) end
  if os.clock() > deadline then fail("%s: it took more than %d seconds", what, SLOWEST) end
  return table.unpack(result, 2, result.n)
end

-- JSON is written with 14 digits.
local function equal(a, b)
  return a == b or type(a) == "number" and type(b) == "number" and ("%.13g"):format(a) == ("%.13g"):format(b)
end

-- The first difference of two values: its path and both values, or nil.
local function difference(a, b, path)
  if type(a) ~= "table" or type(b) ~= "table" then
    if equal(a, b) then return nil end
    return ("%s: %s and %s"):format(path, tostring(a), tostring(b))
  end
  for key, value in pairs(a) do
    local found = difference(value, b[key], path .. "." .. tostring(key))
    if found then return found end
  end
  for key in pairs(b) do
    if a[key] == nil then return ("%s.%s: only in the second"):format(path, tostring(key)) end
  end
end

-- Without the parts that only Lua can express, and without the warnings of the reader.
local function printable(value)
  if type(value) == "function" then return nil end
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do
    if key ~= "warnings" then copy[key] = printable(item) end
  end
  return copy
end

-- Checks a job that was read: it can be printed, and the printed text reads as the same job.
local function check_job(job)
  local text = bounded("printing the job", json.encode, printable(job))
  local again, err = bounded("reading the printed job", load.string, text, "json", "printed.json")
  if not again then fail("the printed job is refused: %s", tostring(err)) end
  local found = difference(printable(job), printable(again), "job")
  if found then fail("the printed job reads differently: %s", found) end
end

-- Checks a refusal: it says what is wrong and where.
local function check_error(err)
  if type(err) ~= "table" or err.kind ~= "spec" or #err.list == 0 then fail("no error to tell: %s", tostring(err)) end
  for _, problem in ipairs(err.list) do
    if not problem.path and not problem.line then fail("it does not say where: %s", problem.message) end
    if problem.column and problem.column < 1 or problem.line and problem.line < 1 then fail("a place before the file's") end
  end
  local message = tostring(err):gsub("\n", "")
  if not utf8.len(message) or message:find "%c" then fail("it cannot be shown: %q", message) end
end

-- Reads a text and checks the result.
local function read(text, format)
  local job, err = bounded("reading", load.string, text, format, "fuzz." .. format, LIMITS)
  if job then check_job(job) else check_error(err) end
  return job, err
end

-- The errors of a job without their places. A value that is nested too deeply is an error before any other.
local function errors_of(err)
  local list = {}
  for _, problem in ipairs(err.list) do
    if problem.message:find "nested" then return "nested too deeply" end
    list[#list + 1] = ("%s: %s"):format(problem.path, problem.message)
  end
  table.sort(list)
  return table.concat(list, "\n")
end

-- The same job in several formats must be the same job, or have the same errors.
local function agree(texts, formats, must_load)
  local first
  for _, format in ipairs(formats) do
    local ok, why = pcall(function()
      local job, err = read(texts[format], format)
      if must_load and not job then fail("a good job is refused: %s", tostring(err)) end
      local this = { format = format, job = job, errors = err and errors_of(err) }
      first = first or this
      if (first.job == nil) ~= (job == nil) then fail("%s and %s disagree: %s", first.format, format, first.errors or this.errors) end
      local found = job and difference(first.job, job, "job")
      if found then fail("%s and %s give different jobs: %s", first.format, format, found) end
      if first.errors ~= this.errors then
        fail("%s and %s give different errors:\n%s\n-- and --\n%s", first.format, format, first.errors, this.errors)
      end
    end)
    if not ok then return why, format end
  end
end

--- Runs the case of a seed.
---@param seed integer
---@param only? string  one format alone
---@return FuzzFailure?
function M.case(seed, only)
  local r = random.new(seed)
  local job, kind, format = model.job(r), r:int(1, 4), only or r:pick(M.readers)
  local formats = only and { only } or M.readers
  if kind == 1 then job = mutate.job(r, job) end
  local texts = {}
  for _, one in ipairs(M.readers) do texts[one] = write.formats[one](random.new(seed), job) end
  local why, where
  if kind <= 2 then
    why, where = agree(texts, formats, kind == 2)
  else
    texts[format] = mutate.text(r, texts[format])
    local ok, failure = pcall(read, texts[format], format)
    if not ok then why, where = failure, format end
  end
  if not why then return nil end
  if type(why) ~= "table" then error(why, 0) end
  return { message = why.message, text = texts[where], format = where, texts = kind <= 2 and texts or nil }
end

return M
