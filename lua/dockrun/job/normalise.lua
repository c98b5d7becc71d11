--- Reads the raw tree of any format by the rows of schema/ into the one normalised job: every key has its type, absent keys
--- have their defaults. { job = { cache = { task = … } } } -> { name = "cache", type = "service", groups = { … }, … }.
--- Collects all errors instead of ending at the first. Never changes the raw tree, and never looks at the engine or the host.

local json = require "dockrun.core.json"
local lifecycle = require "dockrun.job.schema.lifecycle"
local suggest = require "dockrun.job.suggest"
local rules = require "dockrun.job.rules"
local schema = require "dockrun.job.schema"
local tree = require "dockrun.job.tree"
local types = require "dockrun.job.types"
local tables = require "dockrun.util.tables"

local M = {}

---@class Reading
---@field problems Problems
---@field locate? fun(holder: table, key: any): integer?, integer?  line and column of a value in the file
---@field paths table<table, string>  normalised block -> its path
---@field noted table<SchemaRow, true>  unused keys with a warning
---@field hints table<RowIndex, table<string, string>>  unknown key -> the end of its message
local Reading = {}
Reading.__index = Reading

local function sub(path, key)
  if path == "" then return tostring(key) end
  if type(key) == "string" then return path .. "." .. key end
  return type(key) == "number" and path .. "[" .. key .. "]" or path .. "." .. tostring(key)
end

---@class RowIndex          the keys of a list of rows
---@field known table<string, true>
---@field used string[]       keys, for hints
---@field unused string[]

-- rows -> its index. The rows of a schema never change.
local indexes = setmetatable({}, { __mode = "k" })

---@return RowIndex
local function index_of(rows)
  local index = indexes[rows]
  if index then return index end
  index = { known = {}, used = {}, unused = {} }
  for _, row in ipairs(rows) do
    for _, name in ipairs { row.name, row.also } do
      index.known[name] = true
      if not row.hidden then table.insert(row.unused and index.unused or index.used, name) end
    end
    if row.was then index.known[row.was] = true end
  end
  indexes[rows] = index
  return index
end

function Reading:place(path, holder, key)
  if self.problems:is_full() then self.locate = nil end  -- further problems are only counted
  if self.locate and holder then self.problems:place(path, self.locate(holder, key)) end
end

-- An item of a list or a map. Its path is built only for a problem: most values are valid.
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
    self.problems:add(path, ("must be a list, got %s"):format(types.show(value)))
    return list
  end
  for i = 1, #value do list[#list + 1] = self:item(row, value, i, path) end
  return list
end

local function map_into(self, row, value, path, into)
  if type(value) ~= "table" then
    self.problems:add(path, ("must be a block of key = value, got %s"):format(types.show(value)))
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
    self.problems:add(path, ("must be a block of functions, got %s"):format(types.show(value)))
    return map
  end
  local known = tables.set(lifecycle.hooks)
  for _, key in ipairs(tables.keys(value)) do
    local hook, at = value[key], sub(path, key)
    self:place(at, value, key)
    if key == "on_error" then
      if hook == "fail" or hook == "ignore" then map[key] = hook
      else self.problems:add(at, ("must be 'fail' or 'ignore', got %s"):format(types.show(hook))) end
    elseif not known[key] then
      self.problems:add(at, ("unknown hook '%s'%s"):format(key, suggest.hint(tostring(key), lifecycle.hooks)))
    elseif type(hook) ~= "function" then
      self.problems:add(at, ("a hook must be a function, got %s; only a .lua job file can have hooks"):format(types.show(hook)))
    else
      map[key] = hook
    end
  end
  return map
end

function readers.block(self, row, value, path)
  if type(value) == "table" and type(value[1]) == "table" and tree.is_list(value) then
    if #value > 1 then
      self.problems:add(path, ("appears %s; only one is allowed"):format(#value == 2 and "twice" or #value .. " times"))
    end
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
  path = (path:match "^.*%." or "") .. (row.also or row.name)  -- `group.redis` for each way to write it
  tree.named(value, key, index_of(row.rows).known, function(label, body, holder, at)
    local here = sub(path, label ~= nil and tostring(label) or "?")
    self:place(here, holder, at)
    if type(body) == "table" and body[1] ~= nil and tree.is_list(body) then body = #body == 1 and body[1] or body end
    if type(body) == "table" and body[key] ~= nil and body[key] ~= label then
      self.problems:add(here, ("is labelled %s but sets %s = %s"):format(types.show(label), key, types.show(body[key])))
    end
    local block = self:block(row.rows, body, here, { [key] = label })
    if type(body) == "table" then list[#list + 1] = block end
  end)
  return list
end

-- The value of a row that has two keys, and the key.
local function given(row, raw)
  local also = row.also or row.was
  local value, other = raw[row.name], raw[also]
  if value ~= nil and other ~= nil then return { value, other }, row.name end
  if value == nil then return other, also end
  return value, row.name
end

-- Whether an unused key asks for something. Nomad also prints keys that no user set: 0, "", false and empty tables.
local function asks(value)
  if type(value) == "table" then return next(value) ~= nil end
  return value ~= false and value ~= 0 and value ~= ""
end

-- The problem of a scalar that has the right type.
local function complaint(row, value)
  local why = row.check and row.check(value)
  if why or not row.values then return why end
  for _, one in ipairs(row.values) do
    if one == value then return nil end
  end
  return ("must be one of %s, got %s"):format(table.concat(row.values, ", "), types.show(value))
end

-- The value of a row whose key is absent. A default that is a table is read as if the file had it.
function Reading:default(row, path)
  local default = row.default
  if type(default) ~= "table" then return default end
  return readers[row.type](self, row, default, sub(path, row.name))
end

-- A scalar. Its path is built only for a problem: most values are valid.
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
    self.problems:add(sub(path, row.name), "is required: " .. row.doc)
    return self:default(row, path)
  end
  if row.was and raw[row.name] ~= nil and raw[row.was] ~= nil and row.type ~= "blocks" then
    self.problems:add(sub(path, row.name), ("'%s' is the older name of '%s', but both are set: %s and %s; leave one out"):format(
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

-- Adds a problem for each key of a block that no row has.
function Reading:unknown_keys(index, raw, path)
  local unknown, hints = {}, self.hints[index] or {}
  self.hints[index] = hints
  for key in next, raw do
    if not index.known[key] then unknown[key] = true end
  end
  for _, key in ipairs(tables.keys(unknown)) do
    local at = sub(path, key)
    if type(key) == "number" then
      self.problems:add(at, ("expected `key = value`, found %s"):format(types.show(raw[key])))
    elseif self.problems:is_full() then
      self.problems:add(at, "unknown key")  -- it is counted only, so a hint is not looked for
    else
      self:place(at, raw, key)
      hints[key] = hints[key] or suggest.hint(key, index.used, index.unused)
      self.problems:add(at, ("unknown key '%s'%s"):format(key, hints[key]))
    end
  end
end

--- Reads a block by its rows: { image = "redis", tty = "true" } -> { image = "redis", tty = true, force_pull = false, … }.
--- Always gives a block, so that the errors around it can be found too.
--- `named` holds the label that the file has outside of the block.
function Reading:block(rows, raw, path, named)
  local block = {}
  self.paths[block] = path
  if type(raw) ~= "table" then
    self.problems:add(path, ("must be a block, got %s"):format(types.show(raw)))
    return block
  end
  self:unknown_keys(index_of(rows), raw, path)
  for _, row in ipairs(rows) do
    local name, other = row.name, row.also or row.was
    local holder = named and named[name] ~= nil and named or raw
    if holder[name] ~= nil or row.required or other and raw[other] ~= nil then
      block[name] = self:value(row, holder, path)
    else
      block[name] = self:default(row, path)  -- most rows: a job says little
    end
  end
  return block
end

--- The normalised job of a raw tree.
---@param raw table
---@param problems Problems  collects the errors
---@param locate? fun(holder: table, key: any): integer?, integer?
---@return table? job  nil if there is an error
function M.job(raw, problems, locate)
  local self = setmetatable({ problems = problems, locate = locate, paths = {}, noted = {}, hints = {} }, Reading)
  local jobs = self:block(schema.file, raw, "").job or {}
  if #jobs > 1 then problems:add(self.paths[jobs[2]], ("a file must have one job, got %d"):format(#jobs)) end
  if #jobs == 0 and #problems.list == 0 then problems:add("job", "the file has no job") end
  local job = jobs[1]
  if #jobs ~= 1 then return nil end
  rules.job(self, job)
  if #problems.list > 0 then return nil end
  job.warnings = problems:all_warnings()
  return job
end

return M
