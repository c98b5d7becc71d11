--- From the raw tree of any format to the one normalised job, by the rows of schema.lua. Everything that is wrong is
--- noted, and reading goes on with what is left.

local hooks = require "dockrun.hooks"
local json = require "dockrun.core.json"
local suggest = require "dockrun.job.suggest"
local rules = require "dockrun.job.rules"
local schema = require "dockrun.job.schema"
local tree = require "dockrun.job.tree"
local types = require "dockrun.job.types"
local tables = require "dockrun.util.tables"

local M = {}

---@class Reading
---@field problems Problems
---@field locate? fun(holder: table, key: any): integer?, integer?  where a value stands in the file
---@field paths table<table, string>  normalised block -> its path
---@field noted table<SchemaRow, true>  unused keys that were told
---@field hints table<RowIndex, table<string, string>>  what may be meant by a key that is unknown
---@field wanted table<SchemaRow[], table>  see Reading:steps
local Reading = {}
Reading.__index = Reading

local function sub(path, key)
  if path == "" then return tostring(key) end
  if type(key) == "string" then return path .. "." .. key end
  return type(key) == "number" and path .. "[" .. key .. "]" or path .. "." .. tostring(key)
end

---@class RowIndex          what is asked of a list of rows for every block that is read by it
---@field known table<string, integer>  key -> which row
---@field always integer[]    rows to be read also where their key is not there
---@field new fun(): table      a block in which nothing is said
---@field used string[]       keys, for hints
---@field unused string[]

-- By the rows; a schema's rows never change.
local indexes = setmetatable({}, { __mode = "k" })

local function literal(value)
  if type(value) ~= "table" then return ("%q"):format(value) end
  local parts = {}
  for key, item in next, value do parts[#parts + 1] = ("[%q]=%s"):format(key, literal(item)) end
  return (json.is_array(value) and "array{" or "{") .. table.concat(parts, ",") .. "}"
end

-- A function that makes such a table: all at once, where one key after the other would let it grow step by step.
local function maker(value)
  return assert(load(("local array = ... return function() return %s end"):format(literal(value))))(json.array)
end

---@return RowIndex
local function index_of(rows)
  local index = indexes[rows]
  if index then return index end
  index = { known = {}, always = {}, used = {}, unused = {} }
  local defaults = {}
  for i, row in ipairs(rows) do
    local always = type(row.default) == "table" or row.required
    if always then table.insert(index.always, i) end
    if always then defaults[row.name] = false else defaults[row.name] = row.default end  -- false: room for what is read
    for _, name in ipairs { row.name, row.also } do
      index.known[name] = i
      if not row.hidden then table.insert(row.unused and index.unused or index.used, name) end
    end
    if row.was then index.known[row.was] = i end
  end
  index.new = maker(defaults)
  indexes[rows] = index
  return index
end

function Reading:place(path, holder, key)
  if self.problems:is_full() then self.locate = nil end  -- no place is told any more
  if self.locate and holder then self.problems:place(path, self.locate(holder, key)) end
end

-- What stands in a list or a map under a key. Its path is made where it is needed: most values are right.
function Reading:item(row, holder, key, path)
  if self.locate then self:place(sub(path, key), holder, key) end
  local read, why = types[row.of](holder[key])
  if read ~= nil then why = row.check and row.check(read) end
  if why then self.problems:add(sub(path, key), why) end
  return read
end

local readers = {}

function readers.any(_, _, value) return tree.data(value) end

function readers.list(self, row, value, path)
  local list = json.array {}
  if type(value) ~= "table" or (next(value) ~= nil and not tree.is_list(value)) then
    self.problems:add(path, ("must be a list, not %s"):format(types.show(value)))
    return list
  end
  for i = 1, #value do list[#list + 1] = self:item(row, value, i, path) end
  return list
end

local function map_into(self, row, value, path, into)
  if type(value) ~= "table" then
    self.problems:add(path, ("must be a block of key = value, not %s"):format(types.show(value)))
    return
  end
  if value[1] ~= nil and tree.is_list(value) then
    for _, item in ipairs(value) do map_into(self, row, item, path, into) end
    return
  end
  for _, key in ipairs(tables.keys(value)) do
    local name = tostring(key)
    into[name] = self:item(row, value, key, path)
    local why = row.check_key and row.check_key(name)
    if why then self.problems:add(sub(path, name), ("'%s' %s"):format(name, why)) end
  end
end

function readers.map(self, row, value, path)
  local map = {}
  map_into(self, row, value, path, map)
  return map
end

function readers.hooks(self, _, value, path)
  local map = {}
  if type(value) ~= "table" then
    self.problems:add(path, ("must be a block of functions, not %s"):format(types.show(value)))
    return map
  end
  local known = tables.set(hooks.names)
  for _, key in ipairs(tables.keys(value)) do
    local hook, at = value[key], sub(path, key)
    self:place(at, value, key)
    if key == "on_error" then
      if hook == "fail" or hook == "ignore" then map[key] = hook
      else self.problems:add(at, ("must be 'fail' or 'ignore', not %s"):format(types.show(hook))) end
    elseif not known[key] then
      self.problems:add(at, ("no hook is called '%s'%s"):format(key, suggest.hint(tostring(key), hooks.names)))
    elseif type(hook) ~= "function" then
      self.problems:add(at, ("a hook is a function, not %s; only a .lua job file can hold hooks"):format(types.show(hook)))
    else
      map[key] = hook
    end
  end
  return map
end

function readers.block(self, row, value, path)
  if type(value) == "table" and type(value[1]) == "table" and tree.is_list(value) then
    if #value > 1 then self.problems:add(path, ("stands %d times, and may stand once"):format(#value)) end
    value = value[1]
  end
  return self:block(row.rows, value, path)
end

function readers.blocks(self, row, value, path)
  local list = json.array {}
  local function read(item)
    if tree.is_list(item) then
      for _, one in ipairs(item) do read(one) end
    elseif type(item) ~= "table" or next(item) ~= nil then
      list[#list + 1] = self:block(row.rows, item, sub(path, #list + 1))
    end
  end
  read(value)
  return list
end

function readers.named(self, row, value, path)
  local list, key = json.array {}, row.label or "name"
  path = (path:match "^.*%." or "") .. (row.also or row.name)  -- `group.redis`, whichever way it is written
  tree.named(value, key, index_of(row.rows).known, function(label, body, holder, at)
    local here = sub(path, label ~= nil and tostring(label) or "?")
    self:place(here, holder, at)
    if type(body) == "table" and body[1] ~= nil and tree.is_list(body) then body = #body == 1 and body[1] or body end
    if type(body) == "table" and body[key] ~= nil and body[key] ~= label then
      self.problems:add(here, ("has another %s within: %s"):format(key, types.show(body[key])))
    end
    local block = self:block(row.rows, body, here, { [key] = label })
    if type(body) == "table" then list[#list + 1] = block end
  end)
  return list
end

-- Both keys of a row, as one value.
local function given(row, raw)
  local also = row.also or row.was
  local value, other = raw[row.name], raw[also]
  if value ~= nil and other ~= nil then return { value, other }, row.name end
  if value == nil then return other, also end
  return value, row.name
end

-- Nomad prints keys that nobody set as well: 0, "", false and empty tables ask for nothing.
local function asks(value)
  if type(value) == "table" then return next(value) ~= nil end
  return value ~= false and value ~= 0 and value ~= ""
end

-- What is wrong with a scalar of the right type.
local function complaint(row, value)
  local why = row.check and row.check(value)
  if why or not row.values then return why end
  for _, one in ipairs(row.values) do
    if one == value then return nil end
  end
  return ("must be one of %s, not %s"):format(table.concat(row.values, ", "), types.show(value))
end

-- What makes a row's default that is a table, once it has been read.
local defaults = setmetatable({}, { __mode = "k" })

local function holds_block(row, value)
  for _, inner in ipairs(row.rows or {}) do
    if inner.type == "block" and value[inner.name] ~= nil then return true end
  end
  return false
end

function Reading:default(row, path)
  local new, at = defaults[row], row.type == "block" and sub(path, row.name)
  if new then
    local value = new()
    if at then self.paths[value] = at end
    return value
  end
  local wrong = #self.problems.list
  local value = readers[row.type](self, row, row.default, at or sub(path, row.name))
  -- Not where it lacks what is required, nor where a block within has a path of its own.
  if #self.problems.list == wrong and not holds_block(row, value) then defaults[row] = maker(value) end
  return value
end

-- Its path is made where it is needed: most values are right.
function Reading:scalar(row, scalar, value, key, path)
  local read, why = scalar(value)
  if read ~= nil and (row.check or row.values) then why = complaint(row, read) end
  if not why then return read end
  self.problems:add(sub(path, key), why)
end

function Reading:value(row, raw, path)
  local key, value = row.name, raw[row.name]
  if row.also or row.was then value, key = given(row, raw) end
  if value == nil then
    if row.required then self.problems:add(sub(path, row.name), "is required: " .. row.doc) end
    if type(row.default) == "table" then return self:default(row, path) end
    return row.default
  end
  if row.was and raw[row.name] ~= nil and raw[row.was] ~= nil and row.type ~= "blocks" then
    self.problems:add(sub(path, row.name), ("'%s' is the older name of '%s', and both are given: %s and %s; leave one out"):format(
      row.was, row.name, types.show(raw[row.name]), types.show(raw[row.was])))
    return nil
  end
  if row.older then value = row.older(value) end
  if row.unused and asks(value) and not self.noted[row] then
    self.noted[row] = true
    self.problems:warn(sub(path, key), "known to Nomad; not used on a single host")
  end
  local read = readers[row.type]
  local at = (read or self.locate) and sub(path, key)
  if self.locate then self:place(at, raw, key) end
  if read then return read(self, row, value, at) end
  return self:scalar(row, types[row.type], value, key, path)
end

---@class Step             how to read a row for blocks that have some keys and no others
---@field row SchemaRow
---@field scalar? fun(value: any): any, string?  where there is nothing to it but a scalar
---@field absent boolean   no key of its is there

-- The steps of rows by their numbers, in their order, each once; `there` holds the numbers of keys that are there.
local function steps_of(rows, numbers, there)
  table.sort(numbers)
  local steps = {}
  for i, number in ipairs(numbers) do
    local row = rows[number]
    local plain = not (readers[row.type] or row.also or row.was or row.older or row.unused)
    local step = { row = row, scalar = plain and types[row.type] or nil, absent = not there[number] }
    if number ~= numbers[i - 1] then steps[#steps + 1] = step end
  end
  return steps
end

local function branch(node, key)
  local new = {}
  node[key] = new
  return new
end

local STEPS = {}  -- the key of what a node of Reading.wanted has come to

-- How to read a block: which rows it has a key for, and which want reading anyhow; and whether it has a key that none
-- knows. Most blocks have the keys of one before: what those asked for is found key by key in a tree.
function Reading:steps(rows, index, raw, named)
  local known, stray = index.known, false
  local node = self.wanted[rows] or branch(self.wanted, rows)
  for key in next, raw do
    local deeper = node[key]
    if deeper then
      node = deeper
    elseif known[key] then
      node = branch(node, key)
    else
      stray = true
    end
  end
  for key in next, named or {} do node = node[key] or branch(node, key) end
  if not node[STEPS] then
    local numbers, there = table.move(index.always, 1, #index.always, 1, {}), {}
    for _, holder in ipairs { raw, named } do
      for key in next, holder do
        local number = known[key]
        numbers[#numbers + 1] = number
        there[number or 0] = true
      end
    end
    node[STEPS] = steps_of(rows, numbers, there)
  end
  return node[STEPS], stray
end

function Reading:unknown_keys(index, raw, path)
  local hints = self.hints[index] or {}
  self.hints[index] = hints
  for _, key in ipairs(tables.keys(raw)) do
    local at = sub(path, key)
    if type(key) == "number" then
      self.problems:add(at, ("%s stands here without a key"):format(types.show(raw[key])))
    elseif not index.known[key] and self.problems:is_full() then
      self.problems:add(at, "unknown key")  -- the suggest one is not looked for
    elseif not index.known[key] then
      self:place(at, raw, key)
      hints[key] = hints[key] or suggest.hint(key, index.used, index.unused)
      self.problems:add(at, ("unknown key '%s'%s"):format(key, hints[key]))
    end
  end
end

--- Reads a block by its rows. Always gives a block, so that what is wrong around it can be found too.
--- `named` holds the label that stands outside of it.
function Reading:block(rows, raw, path, named)
  local index = index_of(rows)
  local block = index.new()
  self.paths[block] = path
  if type(raw) ~= "table" then
    self.problems:add(path, ("must be a block, not %s"):format(types.show(raw)))
    return block
  end
  local steps, stray = self:steps(rows, index, raw, named)
  if stray then self:unknown_keys(index, raw, path) end
  local quick = not self.locate
  for i = 1, #steps do
    local step = steps[i]
    local row, scalar = step.row, step.scalar
    local key, new = row.name, step.absent and defaults[row]
    local holder = named and named[key] ~= nil and named or raw
    if new and row.type ~= "block" then
      block[key] = new()
    elseif scalar and quick and holder[key] ~= nil then
      block[key] = self:scalar(row, scalar, holder[key], key, path)
    else
      block[key] = self:value(row, holder, path)
    end
  end
  return block
end

--- The normalised job of a raw tree.
---@param raw table
---@param problems Problems  what is wrong goes there
---@param locate? fun(holder: table, key: any): integer?, integer?
---@return table? job  nil where something is wrong
function M.job(raw, problems, locate)
  local self = setmetatable({ problems = problems, locate = locate, paths = {}, noted = {}, hints = {}, wanted = {} }, Reading)
  local jobs = self:block(schema.file, raw, "").job or {}
  if #jobs > 1 then problems:add(self.paths[jobs[2]], ("a file holds one job, and here are %d"):format(#jobs)) end
  if #jobs == 0 and #problems.list == 0 then problems:add("job", "there is no job in the file") end
  local job = jobs[1]
  if #jobs ~= 1 then return nil end
  rules.job(self, job)
  if #problems.list > 0 then return nil end
  job.warnings = problems:told()
  return job
end

return M
