--- One pull for each image at a time, however many tasks want it, with its progress and its time-outs. Whether an image is
--- pulled, and with which credentials: image.lua.
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Pulls
---@field engine table
---@field options table<string, any>
---@field flights table<string, table>  pulls that run, by reference
local Pulls = {}
Pulls.__index = Pulls

---@param engine table
---@param options table<string, any>
---@return Pulls
function M.new(engine, options) return setmetatable({ engine = engine, options = options, flights = {} }, Pulls) end

-- The progress of all layers together; the engine reports each layer separately.
local function add_up(layers, message)
  local detail = message.progressDetail
  if not message.id or not detail or not detail.total then return end
  local whole = math.max(detail.total, 0)
  if message.status == "Downloading" then layers[message.id] = { math.max(math.min(detail.current or 0, whole), 0), whole } end
  local current, total = 0.0, 0.0
  for _, layer in pairs(layers) do current, total = current + layer[1], total + layer[2] end
  return current, total
end

-- A registry's words for an image that it does not have, or not for this user: a retry does not help.
local final_texts = { "not found", "manifest unknown", "does not exist", "denied", "unauthorized", "no basic auth" }

local function is_final(why)
  for _, text in ipairs(final_texts) do
    if why:find(text, 1, true) then return true end
  end
  return false
end

--- The error of a pull.
---@param reference Reference
---@param why string
---@param kind? string  "pull"
---@return table err  `final`: a retry does not help
function M.error(reference, why, kind)
  return runtime.error(kind or "pull", ("cannot pull %s: %s"):format(reference.full, why), {
    image = reference.full, final = is_final(why),
  })
end

local function pull(self, reference, auth, progress)
  local stream <close>, err = self.engine:image_pull {
    fromImage = reference.name, tag = reference.digest or reference.tag, auth = auth,
    timeout = self.options["docker.pull_activity_timeout"],
  }
  if not stream then
    local down = err.kind == "unreachable" or err.kind == "timeout"
    return nil, M.error(reference, tostring(err), down and err.kind or nil)
  end
  local idle, layers = self.options["docker.pull_activity_timeout"], {}
  while true do
    local message, why = stream:read(idle)
    if message == nil and why then
      if why.kind ~= "timeout" then return nil, M.error(reference, tostring(why), why.kind) end
      return nil, M.error(reference, ("no progress for %g s (docker.pull_activity_timeout)"):format(idle))
    elseif message == nil then
      return true
    elseif message.error or message.errorDetail then
      return nil, M.error(reference, message.errorDetail and message.errorDetail.message or message.error or "no reason given")
    else
      local current, total = add_up(layers, message)
      if total then progress(current, total) end
    end
  end
end

-- One pull for all fibers that wait for it: each gets its result, even if the pull raises.
local function run(self, flight, reference, auth)
  local done, ok, err = pcall(pull, self, reference, auth, function(...)
    for listener in pairs(flight.listeners) do
      if not pcall(listener, ...) then flight.listeners[listener] = nil end  -- the others still wait for the pull
    end
  end)
  if self.flights[reference.full] == flight then self.flights[reference.full] = nil end
  flight.result = done and { ok, err } or { nil, M.error(reference, tostring(ok)) }
  flight.done:close()
end

--- Pulls an image. There is one pull at a time for each reference: every caller waits for the same one, as long as its own
--- time-out allows. The pull is cancelled when no caller waits for it any more.
---@param reference Reference
---@param auth? Credentials
---@param progress? fun(current: number, total: number)  bytes
---@param timeout? number  seconds, instead of docker.pull_timeout
---@return true? ok
---@return table? err
function Pulls:join(reference, auth, progress, timeout)
  local limit = timeout or self.options["docker.pull_timeout"]
  local flight = self.flights[reference.full]
  if not flight then
    flight = { waiting = 0, listeners = {} }
    flight.task = runtime.spawn_free(run, self, flight, reference, auth)
    flight.done = queue.new()
    self.flights[reference.full] = flight
  end
  flight.waiting = flight.waiting + 1
  if progress then flight.listeners[progress] = true end
  local ok, why = pcall(flight.done.pop, flight.done, limit)
  flight.waiting = flight.waiting - 1
  if progress then flight.listeners[progress] = nil end
  if flight.waiting == 0 and not flight.result then
    flight.task:cancel()
    self.flights[reference.full] = nil
  end
  if not ok then error(why, 0) end  -- cancelled while it waited
  if not flight.result then
    local setting = timeout and "image_pull_timeout" or "docker.pull_timeout"
    return nil, M.error(reference, ("not done after %g s (%s)"):format(limit, setting))
  end
  return flight.result[1], flight.result[2]
end

return M
