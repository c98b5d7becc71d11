--- Tasks by their handles: for a script or a host program that kept the handle of a `started` event. The container is not
--- owned by the caller: closing the driver leaves it running.
---
---   local driver <close> = require("dockrun").driver()
---   local task = assert(driver:open(handle))
---   print(task:wait().exit_code)
local docker = require "dockrun.driver.docker"
local json = require "dockrun.core.json"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local events = require "dockrun.driver.events"

local M = {}

--- A running task as text, as it is printed and kept: DOCKER:{"ImageID":"…","ContainerID":"…"}
---@param image_id string
---@param container_id string
---@return string
function M.format(image_id, container_id)
  return ('DOCKER:{"ImageID":%s,"ContainerID":%s}'):format(json.encode(image_id), json.encode(container_id))
end

--- The reverse of format.
---@param handle string
---@return { image_id: string, container_id: string }? ids
---@return table? err  kind "invalid"
function M.parse(handle)
  local ids = json.decode(handle:match "^DOCKER:(.*)$" or "")
  if type(ids) ~= "table" or type(ids.ContainerID) ~= "string" then
    return nil, runtime.error("invalid", ("'%s' is not a handle (DOCKER:{\"ImageID\":…,\"ContainerID\":…})"):format(handle))
  end
  return { image_id = ids.ImageID, container_id = ids.ContainerID }
end

---@class Driver
---@field engine table
---@field events? Watch  one for all handles, from the first on
local Driver = {}
Driver.__index = Driver

---@param engine table
---@return Driver
function M.new(engine) return setmetatable({ engine = engine }, Driver) end

---@class Handle
---@field container_id string
---@field image_id string
local Handle = {}
Handle.__index = Handle

--- Attaches to the container of a handle.
---@param handle string  DOCKER:{"ImageID":"…","ContainerID":"…"}
---@return Handle? task
---@return table? err  kind "invalid"; "engine" with status 404 if the container is gone; "unreachable"
function Driver:open(handle)
  local ids, err = M.parse(handle)
  if not ids then return nil, err end
  local found
  found, err = self.engine:container_inspect(ids.container_id)
  if not found then return nil, err end
  if not self.watch then
    local watching = events.new(self.engine)
    local ok
    ok, err = watching:start()
    if not ok then return nil, err end
    self.watch = watching
  end
  return setmetatable({
    driver = self, engine = self.engine, container_id = found.Id, image_id = found.Image, events = self.watch:add(found.Id),
  }, Handle)
end

--- Stops watching. The containers keep running.
function Driver:close()
  if self.watch then self.watch:stop() end
  self.watch = nil
end

Driver.__close = Driver.close

--- Waits until the container has ended, or for `timeout` seconds. May be called again.
---@param timeout? number
---@return TaskResult? result  exit code, signal, oom flag, error text
---@return table? err  kind "timeout"
function Handle:wait(timeout)
  if self.result then return self.result end
  self.events:push { action = "resync" }  -- it may have ended already
  local done = queue.new()
  local _ <close> = runtime.spawn(function()
    self.result = docker.wait(self.engine, self.container_id, self.events)
    done:push(true)
  end)
  local err = select(2, done:pop(timeout))
  return self.result, not self.result and err or nil
end

--- Sends a signal.
---@param signal? string  "SIGKILL" if left out
---@return true? ok
---@return table? err
function Handle:kill(signal) return self.engine:container_kill(self.container_id, { signal = signal }) end

--- Stops the container: its stop signal, then SIGKILL after the time-out.
---@param timeout? number  5
---@return true? ok
---@return table? err
function Handle:stop(timeout)
  timeout = math.ceil(timeout or 5)
  return self.engine:container_stop(self.container_id, { t = timeout, timeout = timeout + 60 })
end

--- The handle again, as text.
function Handle:__tostring() return M.format(self.image_id, self.container_id) end

return M
