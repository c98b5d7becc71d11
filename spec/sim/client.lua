-- A process's connection to the simulated engine: dockrun.core.docker, with a network in between that is slow and fails.
local engines = require "spec.sim.engine"
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"

local M = {}

local function unreachable(what) return nil, runtime.error("unreachable", "cannot reach tcp://sim:2375: " .. what) end

-- ---- calls --------------------------------------------------------------------------------------

-- The request is on its way; what happens to it does so whether or not somebody still waits.
local function call(self, name, ...)
  local sched, engine, faults = self.sched, self.engine, self.faults
  local arguments, answer, waiting = table.pack(...), nil, nil
  local function done(...)
    answer = answer or table.pack(...)
    if waiting then sched:wake(waiting, "woken") end
  end
  local fault = faults:of_call(name)
  sched:after(faults:latency(), function()
    if engine.down then return done(unreachable "connection refused") end
    if fault == "lost before" then return done(unreachable "connection reset by peer") end
    if fault == "error" then return done(nil, runtime.error("engine", "a failure of the simulation", { status = 500 })) end
    local function answered(...)
      local values = table.pack(...)
      sched:after(faults:latency(), function()
        if fault == "lost after" then return done(unreachable "connection reset by peer") end
        done(table.unpack(values, 1, values.n))
      end)
    end
    local options = arguments
    local results = table.pack(engines.calls[name](engine, options[1], options[2] or {}, answered))
    if results[1] ~= engines.later then answered(table.unpack(results, 1, results.n)) end
  end)
  if not answer then sched:wait(nil, function(wait) waiting = wait end) end
  return table.unpack(answer, 1, answer.n)
end

-- ---- streams ------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

local function new_stream(self) return setmetatable({ sched = self.sched, items = {} }, Stream) end

function Stream:offer(item)
  if self.broken or self.closed then return end
  self.items[#self.items + 1] = item
  if self.wait then self.sched:wake(self.wait, "woken") end
end

function Stream:break_off()
  self.broken = true
  if self.wait then self.sched:wake(self.wait, "woken") end
end

function Stream:read(timeout)
  local deadline = timeout and self.sched.time + timeout
  while #self.items == 0 do
    if self.broken then return unreachable "the stream broke off" end
    if self.ended then return nil end
    if deadline and self.sched.time >= deadline then return nil, runtime.error("timeout", "nothing came in time") end
    self.sched:wait(deadline and deadline - self.sched.time, function(wait) self.wait = wait end)
    self.wait = nil
  end
  local item = table.remove(self.items, 1)
  return item, item.text
end

Stream.__call = Stream.read
function Stream:close() self.closed = true end
Stream.__close = Stream.close

local function open_events(self, options)
  local ok, err = call(self, "system_ping")
  if not ok then return nil, err end
  local stream, sched, faults = new_stream(self), self.sched, self.faults
  local wanted = {}
  for _, action in ipairs(options.filters.event) do wanted[action] = true end
  -- What the network does to an event: nothing, or it comes late, twice, or not at all.
  local feed = {}
  function feed.offer(_, event)
    if feed.gone or stream.closed or stream.broken or not wanted[event.Action] then return end
    local times, delay = faults:of_event()
    for _ = 1, times do sched:after(faults:latency() + delay, function() stream:offer(event) end) end
  end
  function feed.break_off()
    feed.gone = true
    stream:break_off()
  end
  for _, event in ipairs(self.engine.log) do
    if options.since and event.at >= options.since then feed:offer(event) end
  end
  table.insert(self.engine.streams, feed)
  self.process.feeds[#self.process.feeds + 1] = feed
  return stream
end

local function open_pull(self, options)
  local ref = options.fromImage .. ":" .. options.tag
  local ok, err = call(self, "system_ping")
  if not ok then return nil, err end
  local engine, sched = self.engine, self.sched
  if engine.registry_down then
    return nil, runtime.error("engine", "Get http://registry.sim/v2/: dial tcp: connection refused", { status = 500 })
  end
  if not engine.registry[ref] then
    return nil, runtime.error("engine", ("manifest for %s not found: manifest unknown"):format(ref), { status = 404 })
  end
  local stream = new_stream(self)
  for step = 1, 3 do
    sched:after(step * 0.2, function()
      stream:offer { id = "layer", status = "Downloading", progressDetail = { current = step, total = 3 } }
      if step < 3 then return end
      engine.images[ref] = engine.images[ref] or ("sha256:%064x"):format(#ref)
      stream.ended = true
    end)
  end
  return stream
end

-- ---- the connection -----------------------------------------------------------------------------

---@param sched Scheduler
---@param engine SimEngine
---@param faults Faults
---@param process table
---@return table docker  dockrun.core.docker
function M.new(sched, engine, faults, process)
  local client = { sched = sched, engine = engine, faults = faults, process = process }
  local methods = {
    endpoint = function() return "tcp://sim:2375" end,
    api = function() return "1.41" end,
    events = function(_, options) return open_events(client, options) end,
    image_pull = function(_, options) return open_pull(client, options) end,
  }
  for name in pairs(engines.calls) do
    methods[name] = function(_, ...) return call(client, name, ...) end
  end
  return { connect = function() return setmetatable({}, { __index = methods }) end, json = json }
end

return M
