--- Reads a job from Lua: a chunk that returns `job "name" { … }`, or a plain table. Gives the raw tree that normalise.lua
--- reads: a copy in plain tables, in which only the functions are the chunk's own.

local chunk = require "dockrun.sandbox.chunk"
local tree = require "dockrun.job.tree"
local tables = require "dockrun.util.tables"

local M = { has_limits = true }  -- has a budget of its own, see sandbox/chunk.lua

local MOST_VALUES = 1000000

-- The key for children that a block has without a key.
local children = { job = "job", group = "group", task = "task" }

-- job "name" { … } and its kin. `built` gets the kind and the name of each table.
local function builder(kind, built)
  return function(name)
    if type(name) ~= "string" then error(('%s needs a name: %s "name" { … }'):format(kind, kind), 2) end
    return function(body)
      if type(body) ~= "table" then error(('%s "%s" needs a body: %s "%s" { … }'):format(kind, name, kind, name), 2) end
      local block = {}
      for key, value in pairs(body) do block[key] = value end  -- so that one body can serve under two names
      built[block] = { kind = kind, name = name }
      return block
    end
  end
end

-- The runtime for hooks. It raises an error until the file has been read: reading an untrusted file starts nothing.
local function runtime_for_hooks(runtime)
  local ready = false
  local proxy = setmetatable({}, {
    __index = function(_, name)
      if not ready then error(("dockrun.%s: the runtime is available in hooks, not while the file is read"):format(tostring(name)), 2) end
      return runtime[name]
    end,
    __metatable = "dockrun",
  })
  return proxy, function() ready = true end
end

-- A copy in plain tables, with children under the keys of their kind. Raises a message if a value cannot be copied.
local function plain(value, built, budget, depth)
  budget.left = budget.left - 1
  if budget.left < 0 then error(("holds more than %d values"):format(MOST_VALUES), 0) end
  if type(value) ~= "table" then return value end
  if depth > tree.DEEPEST then error("is nested too deeply: does a table hold itself?", 0) end
  local made, copy = built[value], {}
  local keyed = made ~= nil
  for key in next, value do keyed = keyed or type(key) ~= "number" end
  for key, item in next, value do
    if type(key) ~= "string" and type(key) ~= "number" then error(("a %s cannot be a key"):format(type(key)), 0) end
    local child = keyed and type(key) == "number" and type(item) == "table" and built[item]
    if not child then copy[key] = plain(item, built, budget, depth + 1) end
  end
  for i = 1, keyed and rawlen(value) or 0 do
    local item = rawget(value, i)
    local child = type(item) == "table" and built[item]
    local list = child and children[child.kind]
    if list then
      if not budget.lists[copy[list]] then
        copy[list] = { copy[list] }
        budget.lists[copy[list]] = true
      end
      table.insert(copy[list], plain(item, built, budget, depth + 1))
    end
  end
  if made then
    if copy.name ~= nil and copy.name ~= made.name then return { [made.name] = copy } end  -- normalise.lua reports it
    copy.name = made.name
  end
  return copy
end

--- Reads a job file's text.
---@param text string
---@param name string  for messages
---@param opts { vars?: table<string, any>, runtime?: table, instructions?: integer, memory?: number }
---@return table? raw
---@return { message: string, line?: integer }[]? problems
function M.read(text, name, opts)
  local built = setmetatable({}, { __mode = "k" })
  local extra = { var = {} }
  for kind in pairs(children) do extra[kind] = builder(kind, built) end
  for key, value in pairs(opts.vars or {}) do extra.var[key] = tables.copy_data(value) end
  local open = function() end
  if opts.runtime then extra.dockrun, open = runtime_for_hooks(opts.runtime) end
  text = text:gsub("^#[^\n]*", "")  -- `#!`, as `lua` reads a file
  local ok, result = chunk.run(text, name, extra, { instructions = opts.instructions, memory = opts.memory })
  if not ok then
    if not result.line then result.path = "job" end
    return nil, { result }
  end
  open()
  if type(result) ~= "table" then
    return nil, { { path = "job", message = 'the file returns no job: return job "name" { … }' } }
  end
  local made = built[result]
  if made and made.kind ~= "job" then
    return nil, { { path = ("%s.%s"):format(made.kind, made.name), message = ("the file returns a %s, not a job"):format(made.kind) } }
  end
  local done, raw = pcall(plain, result, built, { left = MOST_VALUES, lists = {} }, 1)
  if not done and type(raw) ~= "string" then error(raw, 0) end  -- the error of a signal
  if not done then return nil, { { path = "job", message = raw } } end
  -- `{ job = { cache = { … } } }` is there already; everything else is the job itself.
  if not made and type(raw.job) == "table" then return raw end
  return { job = { raw } }
end

return M
