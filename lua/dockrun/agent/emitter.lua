--- Sends the events of tasks to listeners: the command line, a log, the state, a host program. Keeps no event.
local time = require "dockrun.util.time"

local M = {}

---@class Emitter
---@field listeners (fun(event: table))[]
local Emitter = {}
Emitter.__index = Emitter

---@return Emitter
function M.new() return setmetatable({ listeners = {} }, Emitter) end

--- Calls `listener` with every event from now on. It must not wait.
---@param listener fun(event: table)
function Emitter:listen(listener) self.listeners[#self.listeners + 1] = listener end

--- Sends an event of a task: {time, job, group, task, alloc, event} and the fields of this event (snake_case).
---@param task { job: string, group: string, name: string, alloc_id: string }
---@param name string  see docs/lifecycle.md
---@param fields? table<string, any>
---@return table event
function Emitter:emit(task, name, fields)
  local event = { time = time.format(), job = task.job, group = task.group, task = task.name, alloc = task.alloc_id, event = name }
  for key, value in pairs(fields or {}) do event[key] = value end
  for _, listener in ipairs(self.listeners) do listener(event) end
  return event
end

return M
