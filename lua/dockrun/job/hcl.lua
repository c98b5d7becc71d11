--- Reads a job from HCL 1, the language of `.nomad` and `.hcl` files of Nomad 0.1 to 0.4. Gives the raw tree that schema
--- and normalise.lua read: the same as the JSON form of HCL gives, and the places of its values.

local Lexer = require "dockrun.job.hcl.lexer"
local tree = require "dockrun.job.tree"

local M = {}

---@class HclOpening      a '{' or '[' that waits for its other half
---@field kind "block"|"list"
---@field at integer      its byte
---@field line integer
---@field column integer
---@field indent integer  of its line

---@class HclParser
---@field lexer HclLexer
---@field open HclOpening[]
---@field depth integer    of tables: a label is one too
---@field suspect? HclOpening  a block whose '}' stands further left than itself: perhaps another's
---@field places table<table, table<any, integer>>  holder -> key -> line << 32 | column
---@field shapes table<table, "object"|"objects">   what was written as { … }, and what holds nothing else
---@field twice HclProblem[]
local Parser = {}
Parser.__index = Parser

local function pack(line, column) return line << 32 | column end
local function unpack(place) return place >> 32, place & 0xffffffff end

-- ---- where things stand -----------------------------------------------------------------------

function Parser:place() return pack(self.lexer:position(self.lexer.from)) end

function Parser:note(holder, key, place)
  local places = self.places[holder]
  if not places then
    places = {}
    self.places[holder] = places
  end
  places[key] = place
end

-- ---- what is wrong ----------------------------------------------------------------------------

local function where(opening) return ("line %d, column %d"):format(opening.line, opening.column) end

local wrong_end = { list = "}", block = "]" }

-- What is not closed, where that may be what is wrong.
function Parser:unclosed()
  local kind, opening = self.lexer.kind, self.open[#self.open]
  if not opening or kind ~= "end" and kind ~= wrong_end[opening.kind] then return "" end
  if kind == "end" and self.suspect then opening = self.suspect end
  return ("; the %s that begins at %s is not closed"):format(opening.kind, where(opening))
end

function Parser:unexpected(expected)
  local lexer = self.lexer
  lexer:fail(lexer.from, ("found %s, expected %s%s"):format(lexer:found(), expected, self:unclosed()))
end

-- ---- blocks and lists -------------------------------------------------------------------------

function Parser:enter(levels)
  self.depth = self.depth + levels
  if self.depth > tree.DEEPEST then
    self.lexer:fail(self.lexer.from, ("blocks, labels and lists are nested more than %d deep"):format(tree.DEEPEST))
  end
end

function Parser:begin(kind)
  self:enter(1)
  local line, column = self.lexer:position(self.lexer.from)
  table.insert(self.open, { kind = kind, line = line, column = column, indent = self.lexer:indent() })
  self.lexer:next()
end

function Parser:finish()
  local opening, line, column = table.remove(self.open), self.lexer:position(self.lexer.from)
  local indent = self.lexer:indent()
  local first = column == indent + 1
  if first and line > opening.line and indent < opening.indent then self.suspect = self.suspect or opening end
  self.depth = self.depth - 1
  self.lexer:next()
end

function Parser:list()
  local list, objects = {}, true
  self:begin "list"
  while self.lexer.kind ~= "]" do
    local place = self:place()
    list[#list + 1] = self:value "a value or ']'"
    objects = objects and self.shapes[list[#list]] == "object"
    self:note(list, #list, place)
    if self.lexer.kind == "," then
      self.lexer:next()
    elseif self.lexer.kind ~= "]" then
      self:unexpected "',' or ']'"
    end
  end
  if objects and #list > 0 then self.shapes[list] = "objects" end
  self:finish()
  return list
end

local words = { ["true"] = true, ["false"] = false }
local scalars = { string = true, number = true, heredoc = true }

---@param expected string  for the message where there is none
function Parser:value(expected)
  local kind, value = self.lexer.kind, self.lexer.value
  if kind == "{" then return self:object() end
  if kind == "[" then return self:list() end
  if kind == "name" then value = words[value] end
  if value == nil or kind == "?" then self:unexpected(expected .. "; text stands in double quotes") end
  if kind ~= "name" and not scalars[kind] then self:unexpected(expected) end
  self.lexer:next()
  return value
end

function Parser:object()
  local object = {}
  self.shapes[object] = "object"
  self:begin "block"
  self:items(object, "}", "a key or '}'")
  self:finish()
  return object
end

-- ---- keys -------------------------------------------------------------------------------------

-- A list that may take further blocks. What stands alone becomes the first of a list.
function Parser:extensible(holder, key)
  local value = holder[key]
  if self.shapes[value] == "objects" then return value end
  local list = { value }
  self.shapes[list] = "objects"
  self:note(list, 1, self.places[holder][key])
  holder[key] = list
  return list
end

-- Puts a value under a key. A block may stand several times, which is the same as a list of them; all else only once.
function Parser:put(holder, key, value, place)
  local shape, before = self.shapes[value], holder[key]
  if before == nil then
    holder[key] = value
    self:note(holder, key, place)
  elseif not shape or not self.shapes[before] then
    local line, column = unpack(place)
    table.insert(self.twice, {
      line = line, column = column,
      message = ("'%s' is set twice; the first time at line %d, column %d"):format(key, unpack(self.places[holder][key])),
    })
  else
    local list = self:extensible(holder, key)
    for i, one in ipairs(shape == "object" and { value } or value) do
      list[#list + 1] = one
      self:note(list, #list, shape == "object" and place or self.places[value][i])
    end
  end
end

-- The labels after a key, each with its place. They stand on its line: a word on the next one is a key whose
-- predecessor lacks its `=`.
function Parser:labels(key, line)
  local labels = {}
  while self.lexer.kind == "name" or self.lexer.kind == "string" do
    local place = self:place()
    if unpack(place) > line then self:unexpected(("'=' or '{' after '%s' of line %d"):format(key, line)) end
    labels[#labels + 1] = { name = self.lexer.value, place = place }
    self.lexer:next()
  end
  return labels
end

function Parser:item(holder, expected)
  local lexer = self.lexer
  if lexer.kind ~= "name" and lexer.kind ~= "string" then
    self:unexpected(expected .. (lexer.kind == "number" and "; one that begins with a digit stands in double quotes" or ""))
  end
  local key, place = lexer.value, self:place()
  lexer:next()
  local labels = self:labels(key, (unpack(place)))
  if lexer.kind == "=" and #labels == 0 then
    lexer:next()
    return self:put(holder, key, self:value "a value", place)
  end
  if lexer.kind ~= "{" then self:unexpected(#labels == 0 and "'=', '{' or a label" or "'{' or a label") end
  self:enter(#labels)
  local value = self:object()
  for i = #labels, 1, -1 do
    local label = labels[i]
    value = { [label.name] = value }
    self.shapes[value] = "object"
    self:note(value, label.name, label.place)
  end
  self.depth = self.depth - #labels
  self:put(holder, key, value, place)
end

-- What stands in a block or a file. Nomad's reader takes a comma after an item, and does without.
function Parser:items(holder, close, expected)
  while self.lexer.kind ~= close do
    self:item(holder, expected)
    if self.lexer.kind == "," then self.lexer:next() end
  end
end

-- ---- the file ---------------------------------------------------------------------------------

-- What no text may hold: { message, byte }.
local function unreadable(text)
  local good, at = utf8.len(text)
  if not good then return ("found the byte 0x%02x, which is not UTF-8 here"):format(text:byte(at)), at end
  at = text:find("\0", 1, true)
  if at then return "found a NUL byte", at end
end

local function parse(text)
  local lexer = Lexer.new(text)
  local message, at = unreadable(text)
  if message then lexer:fail(at, message) end
  local parser = setmetatable({ lexer = lexer:next(), open = {}, depth = 0, places = {}, shapes = {}, twice = {} }, Parser)
  local root = {}
  parser:items(root, "end", "a key")
  return root, parser
end

--- Reads a job file's text.
---@param text string
---@return table? raw
---@return (fun(holder: table, key: any): integer?, integer?)|HclProblem[] locate  of a key's value: where the key stands; of
---                                                                                a list's, where it stands itself
function M.read(text)
  text = text:gsub("^\xef\xbb\xbf", ""):gsub("\r\n", "\n")
  local ok, root, parser = pcall(parse, text)
  if not ok then
    if type(root) ~= "table" then error(root, 0) end
    return nil, { root }
  end
  if #parser.twice > 0 then return nil, parser.twice end
  return root, function(holder, key)
    local place = parser.places[holder] and parser.places[holder][key]
    if place then return unpack(place) end
  end
end

return M
