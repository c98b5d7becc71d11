-- The containers of one example in the spec of a script: of busybox, all with a label that no other container has.
--
--   local set <close> = containers.new()          or remove it in after_each
--   local id = set:run("web", "sleep 600")
--   set:script("top.lua", "--json")
local docker = require "dockrun.core.docker"
local engine = require "spec.engine"
local uv = require "luv"

local M = {}

local IMAGE = "busybox:1"
M.image = IMAGE

---@class Containers
---@field engine table    a connection
---@field endpoint string
---@field label string    of every container of the set, and how their names begin; safe in a pattern
local Set = {}
Set.__index = Set

---@param e? { endpoint: string }  the shared engine if left out
---@return Containers
function M.new(e)
  e = e or engine.shared()
  local connection = assert(docker.connect { endpoint = e.endpoint })
  if not connection:image_inspect(IMAGE) then engine.image(e, IMAGE) end
  return setmetatable({
    engine = connection, endpoint = e.endpoint, label = ("spec_%d_%d"):format(uv.os_getpid(), uv.hrtime()),
  }, Set)
end

--- The name that a container of this set has on the engine.
function Set:name(short) return ("%s_%s"):format(self.label, short) end

--- Creates a container without starting it. It ends at once when it is stopped.
---@param short string     see Set:name
---@param command string   for sh
---@param body? table      further fields of the create request
---@return string id
function Set:create(short, command, body)
  local request = {
    Image = IMAGE, Cmd = { "sh", "-c", command }, Labels = { [self.label] = "" }, StopTimeout = 0,
    HostConfig = { NetworkMode = "none" },
  }
  for key, value in pairs(body or {}) do request[key] = value end
  return assert(self.engine:container_create { name = self:name(short), body = request }).Id
end

--- Creates and starts a container.
---@return string id
function Set:run(short, command, body)
  local id = self:create(short, command, body)
  assert(self.engine:container_start(id))
  return id
end

--- Runs a container to its end.
---@return string id
function Set:run_to_end(short, command, body)
  local id = self:run(short, command, body)
  assert(self.engine:container_wait(id))
  return id
end

---@return table state  State of container_inspect
function Set:state(id) return assert(self.engine:container_inspect(id)).State end

--- Whether the container is still there.
function Set:has(id)
  local found, err = self.engine:container_inspect(id)
  return found ~= nil or err.status ~= 404
end

--- The arguments that run a script of scripts/ on the set's engine.
---@return string[]
function Set:script(name, ...) return { "--endpoint", self.endpoint, "scripts/" .. name, ... } end

--- Removes every container of the set, running or not.
function Set:close()
  local filters = { label = { self.label } }
  for _, container in ipairs(assert(self.engine:container_list { all = true, filters = filters })) do
    self.engine:container_remove(container.Id, { force = true, v = true })
  end
end

Set.__close = Set.close

return M
