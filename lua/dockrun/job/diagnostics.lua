--- What is wrong with a job file: collected while it is read, told all at once.

local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Problem
---@field path? string      "job.cache.group.redis.task.redis.config.imgae"
---@field file? string
---@field line? integer
---@field column? integer
---@field message string

---@class SpecError          what `load` returns, with __tostring
---@field kind "spec"
---@field message string     all problems, one a line
---@field list Problem[]

---@class Problems
---@field file? string
---@field list Problem[]
---@field count integer     of all that were found; `most` of them are in the list
---@field most number
---@field most_allocs number  allocations that the job may have
---@field warnings string[]  "path: message"; the first `most`
---@field untold integer      how many more warnings there are
---@field places table<string, { [1]: integer, [2]: integer }>  path -> line, column; where a reader knows them
local Problems = {}
Problems.__index = Problems

---@param file? string
---@param limits? { problems?: number, allocs?: number }  without, there is none
---@return Problems
function M.new(file, limits)
  limits = limits or {}
  return setmetatable({
    file = file, list = {}, count = 0, most = limits.problems or math.huge, most_allocs = limits.allocs or math.huge,
    warnings = json.array {}, untold = 0, places = {},
  }, Problems)
end

--- Whether what is found from here on is counted only.
---@return boolean
function Problems:is_full() return #self.list >= self.most end

--- Notes where the value of a path stands in the file.
function Problems:place(path, line, column) self.places[path] = line and { line, column } end

-- The place of a path, or of the nearest thing around it.
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

-- Text of a stranger's file, such that a terminal shows it and JSON can hold it.
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

--- Something is wrong. Where no line is given, the one noted for the path is taken.
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

--- Something is worth a word, and does not stop the job.
---@param path string
---@param message string
function Problems:warn(path, message)
  self.untold = self.untold + (#self.warnings < self.most and 0 or 1)
  if self.untold == 0 then table.insert(self.warnings, ("%s: %s"):format(path, message)) end
end

--- What is worth a word: "path: message", and how many more there are.
---@return string[]
function Problems:told()
  if self.untold == 0 then return self.warnings end
  local more = ("and %d more warnings; limits.problems says how many are told"):format(self.untold)
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

--- Everything that was found, as one error.
---@return SpecError? err  nil where nothing is wrong
function Problems:error()
  if #self.list == 0 then return nil end
  local lines = {}
  for i, problem in ipairs(self.list) do lines[i] = text(problem) end
  if self.count > #self.list then
    lines[#lines + 1] = ("and %d more problems; limits.problems says how many are told"):format(self.count - #self.list)
  end
  return runtime.error("spec", table.concat(lines, "\n"), { list = self.list })
end

return M
