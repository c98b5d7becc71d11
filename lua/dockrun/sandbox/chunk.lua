--- Runs one untrusted chunk of Lua, such as a job file, under a budget of instructions, memory and processor time.
---
--- Guarantees: only text is loaded, no bytecode; the chunk can reach what stdlib.lua and the caller give it, and nothing
--- else; it ends when the budget is used up, whatever it catches; the libraries of the host program are unchanged
--- afterwards. It cannot wait: it runs to its end before the caller continues.
---
--- A replacement of this file must have `run` and `limits`.

local budgets = require "dockrun.core.budget"
local runtime = require "dockrun.core.runtime"
local stdlib = require "dockrun.sandbox.stdlib"

local M = {}

---@class SandboxLimits         the budget of one chunk
---@field instructions? integer  of the Lua virtual machine: 10 million
---@field memory? number         MB at a time, with garbage that is not yet collected: 64
---@field seconds? number        of the processor: 5

M.limits = { instructions = 10000000, memory = 64, seconds = 5 }

-- The message for each part of the budget that is used up.
local words = {
  memory = "it used more than %g MB of memory", instructions = "it ran more than %d instructions: an endless loop?",
  seconds = "it ran for more than %g seconds",
}

-- All strings of the process share one metatable. While the coroutine runs, its __index is the sandbox's string library.
local function resume_with_strings(co, strings)
  local meta = getmetatable ""
  local own = meta.__index
  meta.__index = strings
  local done, ok, result = pcall(coroutine.resume, co)
  meta.__index = own
  if not done then return false, ok end
  return ok, result
end

-- The line of the chunk at which a coroutine failed.
local function line_of(co, source)
  local level = 0
  while true do
    local frame = debug.getinfo(co, level, "Sl")
    if not frame then return nil end
    if frame.source == source and frame.currentline > 0 then return frame.currentline end
    level = level + 1
  end
end

-- "file:3: message" -> "message", 3
local function split(message, short)
  if message:sub(1, #short + 1) ~= short .. ":" then return message end
  local line, rest = message:sub(#short + 2):match "^(%d+): (.*)$"
  if not line then return message end
  return rest, math.tointeger(line)
end

local function short_source(source)
  return debug.getinfo(assert(load("return", source)), "S").short_src
end

local function describe(err)
  if type(err) == "string" then return err end
  if type(err) == "number" then return tostring(err) end
  return ("it raised an error that is a %s, not a message"):format(type(err))
end

local function environment(extra, in_time)
  local env = stdlib.globals(in_time)
  for name, value in pairs(extra) do env[name] = value end
  return setmetatable(env, {
    __index = function(_, name)
      if name == "dockrun" then return nil end  -- a file may test whether it is there
      error(("'%s' is not defined, and not available in a job file"):format(tostring(name)), 2)
    end,
    __metatable = "sandbox",
  })
end

-- Garbage counts as used memory until it is collected. Collects that of the caller before the chunk starts, so that
-- freeing it later does not give the chunk more memory.
local function with_collector()
  local running = collectgarbage "isrunning"
  collectgarbage()
  collectgarbage "restart"
  return setmetatable({}, { __close = function() if not running then collectgarbage "stop" end end })
end

local ERROR = getmetatable(runtime.error("cancelled", ""))

-- Whether a signal raised the error, not the chunk.
local function is_interruption(err) return getmetatable(err) == ERROR and err.kind == "cancelled" end

-- Compiles and runs a chunk under its budget. The budget ends with the call.
---@return thread? co
---@return boolean ok
---@return any result
---@return "memory"|"instructions"|"seconds"|nil passed  the part of the budget that was used up
local function run(text, source, extra, limits)
  local _ <close> = with_collector()
  local budget <close> = budgets.new { memory = limits.memory, instructions = limits.instructions, seconds = limits.seconds }
  local env = environment(extra, function() budget:check() end)
  local chunk, why = load(text, source, "t", env)
  if not chunk then return nil, false, why, budget:passed() end
  local co = coroutine.create(chunk)
  budget:watch(co)
  local ok, result = resume_with_strings(co, env.string)
  if not ok and is_interruption(result) then error(result, 0) end
  return co, ok and coroutine.status(co) == "dead", result, budget:passed()
end

--- Runs a chunk: "return 1 + 1" -> true, 2.
---@param text string
---@param name string                 for messages: the file
---@param extra table<string, any>    further globals
---@param limits? SandboxLimits
---@return boolean ok
---@return any result                 of the chunk; if not ok, { message = string, line? = integer }
function M.run(text, name, extra, limits)
  limits = setmetatable(limits or {}, { __index = M.limits })
  local source = "@" .. name
  local short = short_source(source)
  local co, ok, result, passed = run(text, source, extra, limits)
  if ok and not passed then return true, result end
  local message, line = split(passed and words[passed]:format(limits[passed]) or describe(result), short)
  if not co and not line and message:find("overflow", 1, true) then message = "is nested too deeply" end  -- "C stack overflow"
  return false, { message = message, line = line or co and line_of(co, source) or nil }
end

return M
