--- Collects the errors and warnings of a job file while it is read, with their places, and makes one error of them.

local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Problem
---@field path? string      "job.cache.group.redis.task.redis.config.imgae"
---@field file? string
---@field line? integer
---@field column? integer
---@field message string

---@class SpecError          the error of `load`, with __tostring
---@field kind "spec"
---@field message string     all problems, one a line
---@field list Problem[]

---@class Problems
---@field file? string
---@field list Problem[]
---@field count integer     of all problems; at most `most` of them are in the list
---@field most number
---@field most_allocs number  allocations that the job may have
---@field warnings string[]  "path: message"; the first `most`
---@field unlisted integer      number of further warnings
---@field places table<string, { [1]: integer, [2]: integer }>  path -> line, column, if the reader knows them
local Problems = {}
Problems.__index = Problems

---@param file? string
---@param limits? { problems?: number, allocs?: number }  left out: no limit
---@return Problems
function M.new(file, limits)
  limits = limits or {}
  return setmetatable({
    file = file, list = {}, count = 0, most = limits.problems or math.huge, most_allocs = limits.allocs or math.huge,
    warnings = json.array {}, unlisted = 0, places = {},
  }, Problems)
end

--- Whether further problems are only counted.
---@return boolean
function Problems:is_full() return #self.list >= self.most end

--- Notes the line and column of the value of a path.
function Problems:place(path, line, column) self.places[path] = line and { line, column } end

-- The place of a path, or of the nearest block around it.
local function place_of(self, path)
  while path do
    if self.places[path] then return table.unpack(self.places[path]) end
    path = path:match "^(.+)[.%[]"
  end
end

local LONGEST = 2000  -- bytes of a message, or of a path

local function shorten(text)
  if #text <= LONGEST then return text end
  local cut = LONGEST
  while text:byte(cut + 1) & 0xc0 == 0x80 do cut = cut - 1 end  -- in the middle of a character
  return text:sub(1, cut) .. "…"
end

-- Untrusted text in a form that a terminal can show and JSON can hold.
local function readable(text)
  if not text then return nil end
  text = shorten(text)
  if utf8.len(text) and not text:find "%c" then return text end
  local parts, at = {}, 1
  while not utf8.len(text, at) do
    local _, bad = utf8.len(text, at)
    parts[#parts + 1] = text:sub(at, bad - 1) .. "\u{fffd}"
    at = bad + 1
  end
  parts[#parts + 1] = text:sub(at)
  return (table.concat(parts):gsub("\n", " "):gsub("%c", "?"))
end

--- Adds an error. If no line is given, it is the one that `place` noted for the path.
---@param path? string
---@param message string
---@param line? integer
---@param column? integer
function Problems:add(path, message, line, column)
  self.count = self.count + 1
  if self:is_full() then return end
  if not line then line, column = place_of(self, path) end
  table.insert(self.list, { path = readable(path), file = self.file, line = line, column = column, message = readable(message) })
end

--- Adds a warning: the job is loaded all the same.
---@param path string
---@param message string
function Problems:warn(path, message)
  self.unlisted = self.unlisted + (#self.warnings < self.most and 0 or 1)
  if self.unlisted == 0 then table.insert(self.warnings, ("%s: %s"):format(path, message)) end
end

--- All warnings: "path: message", and how many more there are.
---@return string[]
function Problems:all_warnings()
  if self.unlisted == 0 then return self.warnings end
  local more = ("and %d more warnings; raise limits.problems to see them"):format(self.unlisted)
  return json.array(table.move({ more }, 1, 1, #self.warnings + 1, table.move(self.warnings, 1, #self.warnings, 1, {})))
end

local function text(problem)
  local place = problem.file
  for _, number in ipairs { problem.line, problem.line and problem.column } do place = ("%s:%d"):format(place or "", number) end
  local parts = {}
  for _, part in ipairs { place or false, problem.path or false, problem.message } do
    if part then parts[#parts + 1] = part end
  end
  return table.concat(parts, ": ")
end

--- All errors as one.
---@return SpecError? err  nil if there is none
function Problems:error()
  if #self.list == 0 then return nil end
  local lines = {}
  for i, problem in ipairs(self.list) do lines[i] = text(problem) end
  if self.count > #self.list then
    lines[#lines + 1] = ("and %d more problems; raise limits.problems to see them"):format(self.count - #self.list)
  end
  return runtime.error("spec", table.concat(lines, "\n"), { list = self.list })
end

return M
