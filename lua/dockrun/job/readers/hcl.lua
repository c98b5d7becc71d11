--- Reads a job from HCL 1, the language of `.nomad` and `.hcl` files of Nomad 0.1 to 0.4, into a raw tree: the same tree as
--- the JSON form of HCL. job "a" { type = "batch" } -> { job = { a = { type = "batch" } } }.
--- Checks the grammar only; which keys there are is in schema/.

local Lexer = require "dockrun.job.readers.hcl.lexer"
local tree = require "dockrun.job.tree"

local M = {}

---@class HclParser
---@field lexer HclLexer
---@field depth integer  of tables: a label is one too
---@field shapes table<table, "object"|"objects">  what was written as { … }, and what holds nothing else
---@field twice boolean  something is set twice
local Parser = {}
Parser.__index = Parser

-- ---- places -----------------------------------------------------------------------------------

-- Only errors need places, and most files have none. So Parser reads a file without places; Careful reads it again, with
-- places, if there is an error.

---@class HclOpening      a '{' or '[' that is not closed yet
---@field kind "block"|"list"
---@field line integer
---@field column integer
---@field indent integer  of its line

---@class HclCarefulParser: HclParser
---@field open HclOpening[]
---@field suspect? HclOpening  a block whose '}' is further left than its own line: perhaps that of another block
---@field places table<table, table<any, integer>>  holder -> key -> byte
---@field problems HclProblem[]
local Careful = setmetatable({}, { __index = Parser })
Careful.__index = Careful

function Parser.note() end

function Careful:note(holder, key, from)
  local places = self.places[holder]
  if not places then
    places = {}
    self.places[holder] = places
  end
  places[key] = from
end

-- Line and column of the value of a key.
function Careful:locate(holder, key)
  local from = self.places[holder] and self.places[holder][key]
  if not from then return nil end
  local line, column = self.lexer:position(from)
  return line, column
end

-- ---- problems ---------------------------------------------------------------------------------

local function place(line, column) return ("line %d, column %d"):format(line, column) end

local wrong_end = { list = "}", block = "]" }

function Parser.unclosed() return "" end

-- The end of a message if a block or a list that is not closed may be the cause.
function Careful:unclosed()
  local kind, opening = self.lexer.kind, self.open[#self.open]
  if not opening or kind ~= "end" and kind ~= wrong_end[opening.kind] then return "" end
  if kind == "end" and self.suspect then opening = self.suspect end
  return ("; the %s that begins at %s is not closed"):format(opening.kind, place(opening.line, opening.column))
end

function Parser:set_twice() self.twice = true end

function Careful:set_twice(holder, key, from)
  local first = place(self:locate(holder, key))
  local line, column = self.lexer:position(from)
  table.insert(self.problems, { line = line, column = column, message = ("'%s' is set twice; the first time at %s"):format(key, first) })
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

function Parser:begin()
  self:enter(1)
  self.lexer:next()
end

function Careful:begin(kind)
  local line, column, begin = self.lexer:position(self.lexer.from)
  table.insert(self.open, { kind = kind, line = line, column = column, indent = self.lexer:indent(begin) })
  Parser.begin(self)
end

function Parser:finish()
  self.depth = self.depth - 1
  self.lexer:next()
end

function Careful:finish()
  local opening, line, column, begin = table.remove(self.open), self.lexer:position(self.lexer.from)
  local indent = self.lexer:indent(begin)
  local first = column == indent + 1
  if first and line > opening.line and indent < opening.indent then self.suspect = self.suspect or opening end
  Parser.finish(self)
end

function Parser:list()
  local list, objects = {}, true
  self:begin "list"
  while self.lexer.kind ~= "]" do
    local from = self.lexer.from
    list[#list + 1] = self:value "a value or ']'"
    objects = objects and self.shapes[list[#list]] == "object"
    self:note(list, #list, from)
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

---@param expected string  for the message if there is no value
function Parser:value(expected)
  local kind, value = self.lexer.kind, self.lexer.value
  if kind == "{" then return self:object() end
  if kind == "[" then return self:list() end
  if kind == "name" then value = words[value] end
  if value == nil or kind == "?" then self:unexpected(expected .. "; text must be in double quotes") end
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

-- The list of the blocks of a key. A single block becomes the first item of a list.
function Parser:extensible(holder, key)
  local value = holder[key]
  if self.shapes[value] == "objects" then return value end
  local list = { value }
  self.shapes[list] = "objects"
  self:note_first(list, holder, key)
  holder[key] = list
  return list
end

function Parser.note_first() end

function Careful:note_first(list, holder, key) self:note(list, 1, self.places[holder][key]) end

function Parser.note_item() end

function Careful:note_item(list, value, i, from) self:note(list, #list, value and self.places[value][i] or from) end

-- Sets a key. A block may appear several times, which is the same as a list of blocks; any other value only once.
function Parser:put(holder, key, value, from)
  local shape, before = self.shapes[value], holder[key]
  if before == nil then
    holder[key] = value
    self:note(holder, key, from)
  elseif not shape or not self.shapes[before] then
    self:set_twice(holder, key, from)
  else
    local list = self:extensible(holder, key)
    for i, one in ipairs(shape == "object" and { value } or value) do
      list[#list + 1] = one
      self:note_item(list, shape == "objects" and value, i, from)
    end
  end
end

-- The labels after a key, each with its byte. They are on the line of the key: a word on the next line is another key, and
-- the first one lacks its `=`.
function Parser:labels(key, from)
  local labels, lexer = nil, self.lexer
  while lexer.kind == "name" or lexer.kind == "string" do
    local newline = lexer.text:find("\n", from, true)
    if newline and newline < lexer.from then
      self:unexpected(("'=' or '{' after '%s' of line %d"):format(key, (lexer:position(from))))
    end
    labels = labels or {}
    labels[#labels + 1] = { name = lexer.value, from = lexer.from }
    lexer:next()
  end
  return labels
end

function Parser:item(holder, expected)
  local lexer = self.lexer
  if lexer.kind ~= "name" and lexer.kind ~= "string" then
    self:unexpected(expected .. (lexer.kind == "number" and "; a key that begins with a digit must be in double quotes" or ""))
  end
  local key, from = lexer.value, lexer.from
  lexer:next()
  local labels = self:labels(key, from)
  if not labels then
    if lexer.kind == "=" then
      lexer:next()
      return self:put(holder, key, self:value "a value", from)
    end
    if lexer.kind ~= "{" then self:unexpected "'=', '{' or a label" end
    return self:put(holder, key, self:object(), from)
  end
  if lexer.kind ~= "{" then self:unexpected "'{' or a label" end
  self:enter(#labels)
  local value = self:object()
  for i = #labels, 1, -1 do
    local label = labels[i]
    value = { [label.name] = value }
    self.shapes[value] = "object"
    self:note(value, label.name, label.from)
  end
  self.depth = self.depth - #labels
  self:put(holder, key, value, from)
end

-- The items of a block or a file. A comma after an item is optional, as in Nomad's reader.
function Parser:items(holder, close, expected)
  local lexer = self.lexer
  while lexer.kind ~= close do
    self:item(holder, expected)
    if lexer.kind == "," then lexer:next() end
  end
end

-- ---- the file ---------------------------------------------------------------------------------

-- The first byte that no text may have: its message and its offset.
local function unreadable(text)
  local good, at = utf8.len(text)
  if not good then return ("found the byte 0x%02x, which is not UTF-8 here"):format(text:byte(at)), at end
  at = text:find("\0", 1, true)
  if at then return "found a NUL byte", at end
end

local function parse(text, class)
  local lexer = Lexer.new(text)
  local message, at = unreadable(text)
  if message then lexer:fail(at, message) end
  local parser = setmetatable({ lexer = lexer:next(), depth = 0, shapes = {}, open = {}, places = {}, problems = {} }, class)
  local root = {}
  parser:items(root, "end", "a key")
  return root, parser
end

-- Like pcall, but catches only a problem of the text: the error of a signal or a budget still propagates.
local function try_to_parse(text, class)
  local ok, root, parser = pcall(parse, text, class)
  if not ok and (type(root) ~= "table" or root.kind) then error(root, 0) end
  return ok, root, parser
end

-- The same tree with all places, or all problems.
local function parse_carefully(text)
  local ok, root, parser = try_to_parse(text, Careful)
  if not ok then return nil, { root } end
  if #parser.problems > 0 then return nil, parser.problems end
  return root, function(holder, key) return parser:locate(holder, key) end
end

-- Line and column: of the key for a key's value, of the item for a list's.
---@alias HclLocate fun(holder: table, key: any): integer?, integer?

--- Reads a job file's text.
---@param text string
---@return table? raw
---@return (fun(): table, HclLocate)|HclProblem[] again  the same once more, with the places of its values
function M.read(text)
  text = text:gsub("^\xef\xbb\xbf", "")
  if text:find("\r\n", 1, true) then text = text:gsub("\r\n", "\n") end
  local ok, root, parser = try_to_parse(text, Parser)
  if not ok or parser.twice then return parse_carefully(text) end
  return root, function() return parse_carefully(text) end
end

return M
