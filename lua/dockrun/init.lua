-- require "dockrun": the public API for scripts, hooks and host programs. Every version of Lua can read this file, so that the
-- core can raise an error that names the version it needs.
require "dockrun.core"

local runtime = require "dockrun.core.runtime"
local queue = require "dockrun.core.queue"

---@class dockrun
local M = {
  version = runtime.version,
  spawn = runtime.spawn,
  sleep = runtime.sleep,
  current = runtime.current,
  limit = runtime.limit,
  now = runtime.now,
  clock = runtime.clock,
  error = runtime.error,
  queue = queue.new,
  all = require "dockrun.all",
  http = require "dockrun.core.http",
  json = require "dockrun.core.json",
  safe = require("dockrun.core.standard").safe,
  ports = require "dockrun.core.ports",
  cgroup = require "dockrun.core.cgroup",
  frames = require "dockrun.core.frames",
  --- The options of this process, which the command line sets. See options.lua.
  ---@type table<string, any>
  options = require("dockrun.options").new(),
}

--- Connects to the Docker engine: at `opts.endpoint`, or that of the command line and the options, or the default socket.
--- DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are used only with --dev.
---@param opts? { endpoint?: string, timeout?: number, tls?: table, trace?: fun(call: table) }
---@return table? engine  with a method for each operation of the Engine API; see docs/engine.md
---@return table? err
function M.connect(opts) return require("dockrun.driver.endpoint").connect(M.options, opts) end

--- Reads a job file. See job/load.lua.
---@param path string
---@param opts? { vars?: table<string, any> }
---@return table? job
---@return table? err  kind "spec": all errors of the file
function M.load_job(path, opts)
  return require("dockrun.job.load").file(path, { vars = opts and opts.vars, runtime = M })
end

--- A driver, which opens tasks by their handles. See driver/handle.lua.
---@param engine? table  of `connect`; if left out, `connect` is called
---@return Driver? driver  `driver:open(handle)`
---@return table? err
function M.driver(engine)
  local err
  if not engine then engine, err = M.connect() end
  if not engine then return nil, err end
  return require("dockrun.driver.handle").new(engine)
end

--- An agent, which runs jobs on an engine. See agent/init.lua.
---@param opts? { trace?: fun(call: table) }
---@return Agent? agent
---@return table? err
function M.agent(opts) return require("dockrun.agent").new(M.options, opts) end

-- Parts that most programs do not need: each is loaded at its first use.
local parts = {
  arguments = "dockrun.arguments",  -- command lines of scripts
  duration = "dockrun.job.duration",
  output = "dockrun.output",        -- tables, colours and text that is safe on a terminal
  stats = "dockrun.driver.stats",   -- what containers use
  time = "dockrun.util.time",       -- RFC 3339
}

return setmetatable(M, { __index = function(self, name)
  local part = parts[name] and require(parts[name])
  if part then rawset(self, name, part) end
  return part
end })
