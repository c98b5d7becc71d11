--- Runs a stranger's Lua: text only, with nothing but what safe.lua and the caller give, under a limit of instructions,
--- memory and time. Whatever it does, the host program's libraries are afterwards what they were.

local safe = require "dockrun.job.safe"

local M = {}

---@class SandboxLimits
---@field instructions? integer  of the Lua virtual machine: 10 million
---@field memory? number         MB, of all that is allocated, freed or not: 64
---@field seconds? number        of the processor: 5

M.limits = { instructions = 10000000, memory = 64, seconds = 5 }

-- One instruction may allocate this many KB. Strings can thus not grow beyond it, which bounds the one operation that
-- cannot be looked into: `..` joins up to 250 strings at once.
local STEP_KB = safe.longest // 1024

local function reason(limits, steps, kilobytes, step)
  if steps > limits.instructions then return ("it ran more than %d instructions: an endless loop?"):format(limits.instructions) end
  if kilobytes > limits.memory * 1024 then return ("it used more than %g MB of memory"):format(limits.memory) end
  if step > STEP_KB then return ("it took more than %d KB of memory at once"):format(STEP_KB) end
  return ("it ran for more than %g seconds"):format(limits.seconds)
end

-- A hook for every instruction. Once a limit is passed it raises at each one, so that no pcall gets any further.
local function guard(limits)
  local count, clock = collectgarbage, os.clock
  local state = { why = nil }
  local first, deadline = count "count", clock() + limits.seconds
  local last, most, steps = first, first + limits.memory * 1024, 0
  function state.hook()
    steps = steps + 1
    local now = count "count"
    if steps > limits.instructions or now > most or now - last > STEP_KB or (steps % 256 == 0 and clock() > deadline) then
      state.why = state.why or reason(limits, steps, now - first, now - last)
      steps = limits.instructions
      error(state.why, 0)
    end
    last = now
  end
  return state
end

-- Strings have one metatable in the whole process. While the coroutine runs, it leads to the sandbox's functions.
local function resume_with_strings(co, strings)
  local meta = getmetatable ""
  local own = meta.__index
  meta.__index = strings
  local ok, result = coroutine.resume(co)
  meta.__index = own
  return ok, result
end

-- The line in the chunk where a dead coroutine ended.
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

local function environment(extra)
  local env = safe.globals()
  for name, value in pairs(extra) do env[name] = value end
  return setmetatable(env, {
    __index = function(_, name)
      if name == "dockrun" then return nil end  -- there or not: a file may ask
      error(("'%s' is not defined, and not available in a job file"):format(tostring(name)), 2)
    end,
    __metatable = "sandbox",
  })
end

--- Runs a chunk and gives what it returns.
---@param text string
---@param name string                 for messages: the file
---@param extra table<string, any>    further globals
---@param limits? SandboxLimits
---@return boolean ok
---@return any result                 where ok; else { message = string, line? = integer }
function M.run(text, name, extra, limits)
  limits = setmetatable(limits or {}, { __index = M.limits })
  local source = "@" .. name
  local short = short_source(source)
  local env = environment(extra)
  local chunk, why = load(text, source, "t", env)
  if not chunk then
    local message, line = split(why, short)
    if not line and message:find("overflow", 1, true) then message = "is nested too deeply" end  -- "C stack overflow"
    return false, { message = message, line = line }
  end
  local co = coroutine.create(chunk)
  local collecting = collectgarbage "isrunning"
  collectgarbage "stop"  -- what is allocated only grows, and each instruction's share can be seen
  local state = guard(limits)
  debug.sethook(co, state.hook, "", 1)
  local ok, result = resume_with_strings(co, env.string)
  debug.sethook(co)
  if collecting then collectgarbage "restart" end
  if ok and coroutine.status(co) == "dead" and not state.why then return true, result end
  local message, line = split(describe(state.why or result), short)
  return false, { message = message, line = line or line_of(co, source) }
end

return M
