--- Reads JSON again after an error: the same tree with the places of its values, and with the keys that an object has twice.
--- json.decode keeps one of the two (RFC 8259, section 4, allows that). The text must be valid JSON.

local json = require "dockrun.core.json"
local lpeg = require "lpeg"

local M = {}

---@class JsonReader
---@field text string  valid JSON
---@field at integer   the next byte
---@field places table<table, table<any, integer>>  holder -> key -> byte
---@field twice { key: string, at: integer, first: integer }[]
local Reader = {}
Reader.__index = Reader

function Reader:skip() self.at = self.text:match("^%s*()", self.at) end

local words = { ["true"] = true, ["false"] = false, null = json.null }

-- A string, a number or a word.
function Reader:scalar()
  local text, from = self.text, self.at
  local plain, after = text:match('^"([^"\\]*)"()', from)
  if plain then
    self.at = after
    return plain
  end
  if text:byte(from) == 0x22 then
    after = from + 1
    while text:byte(after) ~= 0x22 do after = text:find('["\\]', after + (text:byte(after) == 0x5c and 2 or 0)) end
    after = after + 1
  else
    after = text:match("^[^%s,%]}]+()", from)
  end
  self.at = after
  local token = text:sub(from, after - 1)
  if words[token] ~= nil then return words[token] end
  return json.decode("[" .. token .. "]", true)[1]
end

-- Reads the items between two brackets; `item` reads one.
function Reader:items(close, item)
  self.at = self.at + 1
  self:skip()
  while self.text:byte(self.at) ~= close do
    item()
    self:skip()
    if self.text:byte(self.at) == 0x2c then self.at = self.at + 1 end
    self:skip()
  end
  self.at = self.at + 1
end

function Reader:object()
  local object, places = {}, {}
  self.places[object] = places
  self:items(0x7d, function()
    local at, key = self.at, self:scalar()
    self:skip()
    self.at = self.at + 1  -- the colon
    local value = self:value()
    if places[key] then table.insert(self.twice, { key = key, at = at, first = places[key] }) end
    if value ~= json.null then object[key] = value end
    places[key] = places[key] or at
  end)
  return object
end

function Reader:list()
  local list, places = json.array {}, {}
  self.places[list] = places
  self:items(0x5d, function()
    local at = self.at
    list[#list + 1] = self:value()
    places[#list] = at
  end)
  return list
end

function Reader:value()
  self:skip()
  local first = self.text:byte(self.at)
  if first == 0x7b then return self:object() end
  if first == 0x5b then return self:list() end
  return self:scalar()
end

local Cc, Ct, P, S = lpeg.Cc, lpeg.Ct, lpeg.P, lpeg.S

-- One capture for each key whose value is not null.
local bare = (1 - S '"\\') ^ 0
local quoted = '"' * bare * (P "\\" * 1 * bare) ^ 0 * '"'
local other = ((1 - S '":') ^ 1 + quoted) ^ 0
local kept_keys = Ct((other * ":" * S " \t\r\n" ^ 0 * (P "null" + Cc(true))) ^ 0)

--- Whether an object of this text may have a key twice.
---@param text string   JSON
---@param kept integer  keys that the decoded value has in all
---@return boolean
function M.has_twice(text, kept) return #kept_keys:match(text) ~= kept end

--- Reads it.
---@param text string  JSON
---@return any value
---@return JsonReader reader
function M.read(text)
  local self = setmetatable({ text = text, at = 1, places = {}, twice = {} }, Reader)
  return self:value(), self
end

return M
