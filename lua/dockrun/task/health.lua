--- Whether a running task is healthy: by the HEALTHCHECK of its image, which the engine runs, and by checks of its job,
--- which run here. It is healthy once all of them pass, and unhealthy as soon as one of them fails for good.
local docker = require "dockrun.driver.docker"
local try = require "dockrun.util.try"
local checks = require "dockrun.task.checks"
local runtime = require "dockrun.core.runtime"

local M = {}

---@class Health
---@field task Task
---@field sources table<string, "starting"|"healthy"|"unhealthy">  by name
---@field names string[]
---@field reasons table<string, string>
---@field report fun(state: "healthy"|"unhealthy", why?: string)
local Health = {}
Health.__index = Health

local function add_source(self, name)
  self.names[#self.names + 1] = name
  self.sources[name] = "starting"
end

-- The health of the whole, from its sources.
local function combined(self)
  local whole = "healthy"
  for _, name in ipairs(self.names) do
    local state = self.sources[name]
    if state == "unhealthy" then return state, ("%s: %s"):format(name, self.reasons[name] or "unhealthy") end
    if state == "starting" then whole = "starting" end
  end
  return whole
end

local function set(self, name, state, why)
  self.reasons[name] = why
  if self.sources[name] == state then return end
  self.sources[name] = state
  local whole, reason = combined(self)
  if whole == self.state or whole == "starting" then return end
  self.state = whole
  self.report(whole, reason)
end

-- Runs a check at its interval, and counts. Restarts a task that fails too often in a row after its grace period.
local function run(self, check, name)
  local passes, failures, bad = 0, 0, 0
  local started, again = runtime.now(), check.check_restart or { limit = 0, grace = 0 }
  while true do
    local ok, why = try(checks.run, self.task, check)
    if ok ~= nil then  -- an unknown result does not count
      passes, failures = ok and passes + 1 or 0, ok and 0 or failures + 1
      bad = (not ok and runtime.now() - started >= again.grace) and bad + 1 or 0
    end
    if passes >= check.success_threshold then set(self, name, "healthy") end
    if failures >= check.failure_threshold then set(self, name, "unhealthy", why) end
    if again.limit > 0 and bad >= again.limit then
      runtime.spawn(self.task.restart, self.task, ("%s failed %d times in a row: %s"):format(name, bad, why))
      return
    end
    runtime.sleep(check.interval)
  end
end

local ENGINE = "HEALTHCHECK"

-- The result of the image's own check, if it has one.
local function read_engine_health(self)
  local state = docker.health(self.task.services.engine, self.task.container_id)
  if not state then return end
  if not self.sources[ENGINE] then add_source(self, ENGINE) end
  if state ~= "starting" then set(self, ENGINE, state) end
end

--- Watches the health of a running task until it is closed.
---@param task Task
---@param report fun(state: "healthy"|"unhealthy", why?: string)  called at each change
---@return Health
function M.watch(task, report)
  local self = setmetatable({ task = task, report = report, sources = {}, names = {}, reasons = {}, checking = {} }, Health)
  for i, check in ipairs(task.context.resolved.checks or {}) do
    local name = check.name or ("%s check %d"):format(check.type, i)
    add_source(self, name)
    self.checking[i] = runtime.spawn(run, self, check, name)
  end
  read_engine_health(self)
  return self
end

--- Whether it has any check.
---@return boolean
function Health:has_sources() return #self.names > 0 end

--- Takes an event of the container.
---@param event { action: string }
function Health:seen(event)
  local state = event.action:match "^health_status: (%a+)"
  if state == "healthy" or state == "unhealthy" then
    if not self.sources[ENGINE] then add_source(self, ENGINE) end
    set(self, ENGINE, state)
  elseif event.action == "resync" and self.sources[ENGINE] then
    read_engine_health(self)
  end
end

function Health:__close()
  for _, fiber in ipairs(self.checking) do fiber:cancel() end
end

return M
