--- Hooks: functions of a host program, an operator or a job, named after the transition at which they run. A hook gets the
--- task (read-only) and its subject, which is the value that dockrun decides at this transition. It may change the subject,
--- may veto the transition, and may call anything of the runtime. A hook that fails harms its own task only.
---
--- A replacement of this file must have `names`, `new` (with `register`, `load`, `has` and `run`) and `read_only`.
local call = require "dockrun.sandbox.call"
local lifecycle = require "dockrun.job.schema.lifecycle"
local runtime = require "dockrun.core.runtime"
local fs = require "dockrun.util.fs"
local validate = require "dockrun.hooks.validate"

local M = {}

--- Every transition that has a hook.
M.names = lifecycle.hooks

local known = {}
for _, name in ipairs(M.names) do known[name] = true end

---@alias Hook fun(task: table, subject: any): boolean?, string?  false, "why" is a veto

---@class Hooks
---@field host table<string, Hook>      registered by a host program: they run first
---@field operator table<string, Hook>  of the operator's file: they run second; the job's own hooks run last
---@field limits CallLimits             the budget of each call
local Hooks = {}
Hooks.__index = Hooks

---@param options table<string, any>  see options.lua
---@return Hooks
function M.new(options)
  return setmetatable({ host = {}, operator = {}, limits = {
    timeout = options.hook_timeout, instructions = options.hook_instructions, memory = options.hook_memory,
    seconds = options.hook_seconds, period = options.hook_timeout,
  } }, Hooks)
end

--- Registers a hook of the host program. It replaces the one that the host program registered before for this transition.
---@param name string
---@param hook Hook
function Hooks:register(name, hook)
  assert(known[name], ("unknown hook '%s'"):format(tostring(name)))
  assert(type(hook) == "function", ("hook '%s' must be a function, got a %s"):format(name, type(hook)))
  self.host[name] = hook
end

local LONGEST = 8 << 20  -- bytes of the operator's file

--- Loads the operator's hooks: a Lua file that returns a table of functions. The file is trusted: no sandbox.
---@param path string
---@return true? ok
---@return table? err  kind "invalid"; the message names the file
function Hooks:load(path)
  local function bad(why) return nil, runtime.error("invalid", ("hooks %s: %s"):format(path, tostring(why))) end
  local text, why = fs.read_any(path, LONGEST)
  if not text then return bad(why) end
  local chunk
  chunk, why = load(text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", ""), "@" .. path, "t")
  if not chunk then return bad(why) end
  local ok, hooks = pcall(chunk)
  if not ok then return bad(hooks) end
  if type(hooks) ~= "table" then return bad("the file must return a table of functions, got a " .. type(hooks)) end
  for name, hook in pairs(hooks) do
    if name == "on_error" then
      if hook ~= "fail" and hook ~= "ignore" then return bad("on_error must be 'fail' or 'ignore', got " .. tostring(hook)) end
    elseif not known[name] then
      return bad(("unknown hook '%s'; known: %s"):format(tostring(name), table.concat(M.names, " ")))
    elseif type(hook) ~= "function" then
      return bad(("hook '%s' must be a function, got a %s"):format(name, type(hook)))
    end
  end
  self.operator = hooks
  return true
end

--- A view of plain data that cannot be written to, at any depth.
---@param value any
---@return any
function M.read_only(value)
  if type(value) ~= "table" or getmetatable(value) == "read-only" then return value end
  return setmetatable({}, {
    __index = function(_, key) return M.read_only(value[key]) end,
    __newindex = function(_, key)
      error(("'%s': the task is read-only here; change the hook's second argument instead"):format(tostring(key)), 2)
    end,
    __len = function() return #value end,
    __pairs = function()
      return function(_, key)
        local next_key, next_value = next(value, key)
        return next_key, M.read_only(next_value)
      end, nil, nil
    end,
    __metatable = "read-only",
  })
end

local function failure(message, name, veto)
  return runtime.error("hook", message, { hook = name, veto = veto })
end

-- "hook 'pull' (operator)"
local function title(name, source) return ("hook '%s' (%s)"):format(name, source) end

local function run_one(self, hook, name, source, view, subject)
  local ok, answer, reason = call.call(self.limits, hook, view, subject)
  if not ok then return nil, failure(("%s %s"):format(title(name, source), answer), name) end
  if answer ~= false then return true end
  return nil, failure(("vetoed by %s: %s"):format(title(name, source), reason or "no reason given"), name, true)
end

--- Whether a transition has any hook.
---@param name string
---@param sources { [1]: string, [2]: table<string, Hook> }[]  see run
---@return boolean
function Hooks:has(name, sources)
  if self.host[name] or self.operator[name] then return true end
  for _, source in ipairs(sources) do
    if source[2][name] then return true end
  end
  return false
end

--- Runs every hook of a transition: those of the host program, the operator, the job, the group and the task. The first
--- that fails or vetoes ends the series.
---@param name string
---@param sources { [1]: string, [2]: table<string, Hook> }[]  the job's own: { "group", its hooks }, …
---@param view table    the task, read-only
---@param subject? any  the value that is decided; a hook may change it
---@param report? fun(err: table)  called with an error that `on_error = "ignore"` ignores
---@return true? ok
---@return table? err  kind "hook"; `veto` is true if the hook returned false
function Hooks:run(name, sources, view, subject, report)
  local all = { { "host", self.host }, { "operator", self.operator }, table.unpack(sources) }
  for _, entry in ipairs(all) do
    local source, hooks = entry[1], entry[2]
    local hook = hooks[name]
    if hook then
      local ok, err = run_one(self, hook, name, source, view, subject)
      if not ok and (err.veto or hooks.on_error ~= "ignore") then return nil, err end
      local invalid = validate.problem(name, subject)  -- even if the error is ignored: the next step would fail on it
      if invalid then return nil, failure(("%s returned an invalid %s"):format(title(name, source), invalid), name) end
      if not ok and report then report(err) end
    end
  end
  return true
end

return M
