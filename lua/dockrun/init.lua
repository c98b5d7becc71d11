-- require "dockrun": the runtime for scripts, hooks and host programs. Any Lua can read this file: the core tells it if it is
-- the wrong one.
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
  all = require "dockrun.util.all",
  http = require "dockrun.core.http",
  json = require "dockrun.core.json",
  safe = require("dockrun.core.standard").safe,
  ports = require "dockrun.core.ports",
  cgroup = require "dockrun.core.cgroup",
  frames = require "dockrun.core.frames",
  --- What the command line set for this process; `connect` reads it. See options.lua.
  ---@type table<string, any>
  options = require("dockrun.options").new(),
}

--- A connection to the Docker engine. Without an endpoint: the one of the command line, of the options, or the default
--- socket (contract of `docker.endpoint`; DOCKER_HOST and its kin count only with --dev).
---@param opts? { endpoint?: string, timeout?: number, tls?: table, trace?: fun(call: table) }
---@return table? engine  a method for each row of the Engine API; see docs/engine.md
---@return table? err
function M.connect(opts) return require("dockrun.driver.endpoint").connect(M.options, opts) end

--- Reads a job file. See job/load.lua.
---@param path string
---@param opts? { vars?: table<string, any> }
---@return table? job
---@return table? err  kind "spec": every error of the file
function M.load_job(path, opts)
  return require("dockrun.job.load").file(path, { vars = opts and opts.vars, runtime = M })
end

--- Tasks by their handles. See driver/handle.lua.
---@param engine? table  of `connect`, which is asked where left out
---@return Driver? driver  `driver:open(handle)`
---@return table? err
function M.driver(engine)
  local err
  if not engine then engine, err = M.connect() end
  if not engine then return nil, err end
  return require("dockrun.driver.handle").new(engine)
end

--- An agent: what runs jobs on an engine. See agent.lua.
---@param opts? { trace?: fun(call: table) }
---@return Agent? agent
---@return table? err
function M.agent(opts) return require("dockrun.agent").new(M.options, opts) end

return M
