-- Hooks: an operator's functions, named after the transition at which they run. They see the task, may change what is
-- being decided, may veto it, and may call anything of the runtime. One that fails harms its own task only.
local call = require "dockrun.sandbox.call"
local runtime = require "dockrun.core.runtime"
local fs = require "dockrun.util.fs"
local validate = require "dockrun.hooks.validate"

local M = {}

--- Every transition that has a hook.
M.names = {
  "received", "setup", "ports", "pull", "pulled", "create", "created", "prestart", "started", "healthy", "unhealthy",
  "oom", "exited", "restart", "kill", "killed", "stopped", "cleanup", "failed",
}

local known = {}
for _, name in ipairs(M.names) do known[name] = true end

---@alias Hook fun(task: table, thing: any): boolean?, string?

---@class Hooks
---@field host table<string, Hook>      registered by a host program: run first
---@field operator table<string, Hook>  the operator's file: run second; the job's own come last
---@field limits CallLimits             of each call
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

--- Registers a hook of the host program, in place of the one it had there.
---@param name string
---@param hook Hook
function Hooks:register(name, hook)
  assert(known[name], ("no hook is called '%s'"):format(tostring(name)))
  assert(type(hook) == "function", "a hook is a function")
  self.host[name] = hook
end

local LONGEST = 8 << 20  -- bytes of the operator's file

--- Reads the operator's hooks: a Lua file that returns a table of functions. It has the whole runtime.
---@param path string
---@return true? ok
---@return table? err  kind "invalid", names the file
function Hooks:load(path)
  local function bad(why) return nil, runtime.error("invalid", ("hooks %s: %s"):format(path, tostring(why))) end
  local text, why = fs.read_any(path, LONGEST)
  if not text then return bad(why) end
  local chunk
  chunk, why = load(text:gsub("^\xEF\xBB\xBF", ""):gsub("^#[^\n]*", ""), "@" .. path, "t")
  if not chunk then return bad(why) end
  local ok, hooks = pcall(chunk)
  if not ok then return bad(hooks) end
  if type(hooks) ~= "table" then return bad "it must return a table of functions" end
  for name, hook in pairs(hooks) do
    if name == "on_error" then
      if hook ~= "fail" and hook ~= "ignore" then return bad "on_error is 'fail' or 'ignore'" end
    elseif not known[name] then
      return bad(("no hook is called '%s'; there are: %s"):format(tostring(name), table.concat(M.names, " ")))
    elseif type(hook) ~= "function" then
      return bad(("'%s' is a %s, not a function"):format(name, type(hook)))
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
      error(("'%s': the task is read-only here; change what the hook is given beside it"):format(tostring(key)), 2)
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

local function failure(name, where, what)
  return runtime.error("hook", ("hook '%s' (%s) %s"):format(name, where, what), { hook = name })
end

local function run_one(self, hook, name, where, view, thing)
  local ok, answer, reason = call.call(self.limits, hook, view, thing)
  if not ok then return nil, failure(name, where, answer) end
  if answer ~= false then return true end
  local err = failure(name, where, "said no: " .. (reason or "no reason given"))
  err.veto = true
  return nil, err
end

--- Whether any hook is there for a transition.
---@param name string
---@param sources { [1]: string, [2]: table<string, Hook> }[]
---@return boolean
function Hooks:has(name, sources)
  if self.host[name] or self.operator[name] then return true end
  for _, source in ipairs(sources) do
    if source[2][name] then return true end
  end
  return false
end

--- Runs every hook of a transition: the host program's, the operator's, then the job's, the group's and the task's.
---@param name string
---@param sources { [1]: string, [2]: table<string, Hook> }[]  the job's own: where it stands, and the hooks there
---@param view table   the task, read-only
---@param thing? any   what is being decided; a hook may change it
---@param report? fun(err: table)  told of an error that `on_error = "ignore"` lets pass
---@return true? ok
---@return table? err  kind "hook"; `veto` where a hook said no
function Hooks:run(name, sources, view, thing, report)
  local all = { { "host", self.host }, { "operator", self.operator }, table.unpack(sources) }
  for _, source in ipairs(all) do
    local where, hooks = source[1], source[2]
    local hook = hooks[name]
    if hook then
      local ok, err = run_one(self, hook, name, where, view, thing)
      if not ok and (err.veto or hooks.on_error ~= "ignore") then return nil, err end
      local broken = validate.problem(name, thing)  -- with which nobody can go on
      if broken then return nil, failure(name, where, "left what cannot be used: " .. broken) end
      if not ok and report then report(err) end
    end
  end
  return true
end

return M
