-- A process's connection to the simulated engine: dockrun.core.docker over a network that is slow and fails.
local api = require "spec.sim.api"
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"
local streams = require "spec.sim.stream"

local M = {}

local TIMEOUT = 60  -- seconds that a call may take, as core/docker/docker.c has it

local function unreachable(what) return nil, runtime.error("unreachable", "cannot reach the engine: " .. what) end

---@class SimClient
---@field sched Scheduler
---@field engine SimEngine
---@field faults Faults
---@field process table
local Client = {}
Client.__index = Client

-- A connection that lasts until `close` is called; `on_reset` is called if it breaks.
local function connect(self, on_reset)
  local engine = self.engine
  local connection = { reset = on_reset, process = self.process }
  table.insert(engine.connections, connection)
  return connection, function()
    for i, one in ipairs(engine.connections) do
      if one == connection then return table.remove(engine.connections, i) end
    end
  end
end

-- Sends a request. `serve(answer)` runs it on the engine, and calls `answer` with its result.
local function exchange(self, timeout, serve)
  local sched, engine, faults = self.sched, self.engine, self.faults
  local answer, waiting, close
  local function done(...)
    if answer then return end
    answer = table.pack(...)
    close()
    if waiting then sched:wake(waiting, "woken") end
  end
  local connection
  connection, close = connect(self, function() done(unreachable "connection reset by peer") end)
  local fault = faults:of_call()
  local delay = fault == "slow" and faults.random() * faults.SLOWEST or 0
  local function fail(...)
    local err = table.pack(...)
    sched:after(faults:latency(), function() done(table.unpack(err, 1, err.n)) end)
  end
  -- A request that was sent runs even if its caller died or stopped waiting.
  connection.request = sched:after(faults:latency() + delay * faults.random(2) / 2, function()
    connection.request = nil
    if engine.down then return done(unreachable "connection refused") end
    if answer then return end  -- the connection broke first
    if fault == "lost before" then return fail(unreachable "connection reset by peer") end
    if fault == "error before" then return fail(nil, runtime.error("engine", "a failure of the simulation", { status = 500 })) end
    serve(function(value, err)
      sched:after(faults:latency() + (delay > 4 and delay or 0), function()
        if fault == "silent" then return end
        if fault == "lost after" then return done(unreachable "unexpected end of the answer") end
        if fault == "error after" then return done(nil, runtime.error("engine", "a failure of the simulation", { status = 500 })) end
        done(value, value ~= nil and 200 or err)  -- a call gives the HTTP status too
      end)
    end)
  end)
  self.process:point()
  if not answer then
    local ok, why = pcall(sched.wait, sched, timeout, function(wait) waiting = wait end)
    close()
    if not ok then error(why, 0) end
  end
  if not answer then
    answer = table.pack(nil, runtime.error("timeout", ("no answer within %g s"):format(timeout)))
  end
  self.process:point()
  return table.unpack(answer, 1, answer.n)
end

local function call(self, name, ...)
  local arguments = table.pack(...)
  local options = type(arguments[arguments.n]) == "table" and arguments[arguments.n] or {}
  local id = type(arguments[1]) == "string" and arguments[1] or nil
  local timeout = options.timeout or (name ~= "container_wait" and TIMEOUT + (options.t or 0) or nil)
  if self.sched.trace then self.sched.trace(("  %s %s"):format(name, id and id:sub(1, 12) or "")) end
  return exchange(self, timeout, function(answer)
    local function run(...)
      local results = table.pack(api.calls[name](self.engine, ...))
      if results[1] ~= api.later then answer(table.unpack(results, 1, results.n)) end
    end
    if id then run(id, options, answer) else run(options, answer) end
  end)
end

-- ---- streams ------------------------------------------------------------------------------------

-- Opens a stream: `begin(stream, connection)` at the engine gives true, or nil and an error.
local function open(self, timeout, begin)
  local stream
  local connection, close = connect(self, function() if stream then stream:break_off() end end)
  stream = streams.new(self.sched, close)
  local opened = false
  local _ <close> = setmetatable({}, { __close = function()
    if opened then return end
    stream:break_off()  -- the engine sees that the client has gone
    close()
  end })
  local ok, err = exchange(self, timeout, function(answer) answer(begin(stream, connection)) end)
  if not ok then return nil, err end
  opened = true
  return stream
end

-- A filter names "health_status: healthy" by its first half.
local function wants(options)
  local wanted = {}
  for _, action in ipairs(options.filters.event) do wanted[action] = true end
  return function(event) return wanted[event.Action:match "^[%w_]+"] end
end

-- Events come in order, except those that the network delays.
local function open_events(self, options)
  local sched, faults, engine, wanted = self.sched, self.faults, self.engine, wants(options)
  return open(self, options.timeout or TIMEOUT, function(stream)
    local last = 0
    local feed = {}
    function feed.offer(_, event)
      if stream.broken or stream.closed or not wanted(event) then return end
      local times, late = faults:of_event()
      local at = sched.time + faults:latency()
      if late then at = at + late else at, last = math.max(at, last), math.max(at, last) end
      for _ = 1, times do sched:at(at, function() stream:offer(event) end) end
    end
    for _, event in ipairs(engine.log) do
      if options.since and event.at >= options.since then feed:offer(event) end
    end
    table.insert(engine.feeds, feed)
    stream.on_close = function()
      for i, one in ipairs(engine.feeds) do
        if one == feed then return table.remove(engine.feeds, i) end
      end
    end
    return true
  end)
end

local STEPS, STEP = 3, 0.2  -- of a pull, and the seconds for each

local function open_pull(self, options)
  local sched, faults, engine = self.sched, self.faults, self.engine
  local ref = options.fromImage .. (options.tag:find ":" and "@" or ":") .. options.tag
  return open(self, options.timeout, function(stream)
    local image, err = api.look_up(engine, ref)
    if not image then return nil, err end
    local trouble = faults:happens "stalled pull" and "stalled" or faults:happens "broken pull" and "broken"
    local function step(number)
      if stream.broken or stream.closed then return end  -- the client does not need it any more
      if number == 2 and trouble == "stalled" then return end
      if number == 2 and trouble == "broken" then
        return stream:finish { error = "unexpected EOF", errorDetail = { message = "unexpected EOF" } }
      end
      stream:offer { id = "layer", status = "Downloading", progressDetail = { current = number, total = STEPS } }
      if number < STEPS then return sched:after(STEP, function() step(number + 1) end) end
      engine.images[ref] = image
      engine.changes = engine.changes + 1
      stream:finish { status = "Status: Downloaded newer image for " .. ref }
    end
    sched:after(STEP, function() step(1) end)
    return true
  end)
end

local function open_exec(self, id)
  return open(self, nil, function(stream)
    local ok, err = api.exec(self.engine, id)
    if not ok then return nil, err end
    stream:finish()
    return true
  end)
end

-- ---- the connection -----------------------------------------------------------------------------

--- The module `dockrun.core.docker` of a process.
---@param sched Scheduler
---@param engine SimEngine
---@param faults Faults
---@param process table  `tick` and `point` are called at every step at which it may be killed
---@return table docker
function M.new(sched, engine, faults, process)
  local client = setmetatable({ sched = sched, engine = engine, faults = faults, process = process }, Client)
  local methods = {
    api = function() return "1.41" end,
    events = function(_, options) return open_events(client, options) end,
    image_pull = function(_, options) return open_pull(client, options) end,
    exec_start = function(_, id) return open_exec(client, id) end,
  }
  for name in pairs(api.calls) do
    methods[name] = function(_, ...) return call(client, name, ...) end
  end
  return {
    json = json,
    connect = function(options)
      local endpoint = options.endpoint
      return setmetatable({ endpoint = function() return endpoint end }, { __index = methods })
    end,
  }
end

return M
