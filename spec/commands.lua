-- Commands on an engine and on the state directory of the example, which spec/states.lua makes.
--
--   before_each(states.begin)
--   local result = commands.run(endpoint, "status", "--json")
--   local child <close> = commands.start(endpoint, "agent")
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local process = require "spec.process"
local states = require "spec.states"

local M = {}

--- The arguments of a command.
---@param endpoint string
---@return string[]
function M.words(endpoint, ...) return { "--endpoint", endpoint, "--state-dir", states.dir, ... } end

---@return Child
function M.start(endpoint, ...) return process.start(M.words(endpoint, ...)) end

--- Runs a command to its end; its exit code must not be that of an internal error.
---@return ProcessResult
function M.run(endpoint, ...)
  local result = process.run(M.words(endpoint, ...))
  assert(not result.stderr:find "traceback" and result.code ~= 4, result.stderr)
  return result
end

--- Runs a command that must end with 0.
---@return ProcessResult
function M.succeeds(endpoint, ...)
  local result = M.run(endpoint, ...)
  assert(result.code == 0, result.stdout .. result.stderr)
  return result
end

--- Removes the remaining containers of a job from the engine, and other containers.
---@param engine table
---@param name string    the job's
---@param ids? string[]  other containers, which may be removed already
---@return integer count  the number of the job's containers
function M.remove(engine, name, ids)
  local left, removals = jobs.containers(engine, name), {}
  local function remove(id) removals[#removals + 1] = function() engine:container_remove(id, { force = true, v = true }) end end
  for _, one in ipairs(left) do remove(one.Id) end
  for _, id in ipairs(ids or {}) do remove(id) end
  dockrun.all(removals)
  return #left
end

return M
