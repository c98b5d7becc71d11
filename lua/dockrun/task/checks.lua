--- Runs one check of a task, once. Counts nothing: health.lua does. A replacement of this file has the function `run`; a new
--- check type is a function in `runners` and a row in job/schema/lifecycle.lua.
local exec = require "dockrun.driver.exec"
local retry = require "dockrun.driver.retry"
local http = require "dockrun.core.http"
local call = require "dockrun.sandbox.call"
local queue = require "dockrun.core.queue"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

local function port_of(task, check)
  for _, port in ipairs(task.context.ports) do
    if port.label == check.port or not check.port then return port end
  end
end

-- The address of the port. One that is bound on all addresses answers on the node's.
local function address(task, check)
  local port = port_of(task, check)
  return port.ip, port.host_port
end

local runners = {}

function runners.tcp(task, check)
  local ip, port = address(task, check)
  local socket, done = uv.new_tcp(), queue.new()
  local _ <close> = setmetatable({}, { __close = function() socket:close() end })
  local ok, why = socket:connect(ip, port, function(err) done:push(err or true) end)
  if ok then why = done:pop(check.timeout) or "no answer in time" end
  if why == true then return true end
  return false, ("%s:%d: %s"):format(ip, port, why)
end

function runners.http(task, check)
  local ip, port = address(task, check)
  local url = ("http://%s:%d/%s"):format(ip:find ":" and "[" .. ip .. "]" or ip, port, (check.path:gsub("^/", "")))
  local answer, err = http.request { url = url, method = check.method, timeout = check.timeout }
  if not answer then return false, tostring(err) end
  if answer.status < 400 then return true end
  return false, ("status %d from %s"):format(answer.status, url)
end

-- An engine that cannot be reached says nothing about the task. An error of the engine, such as that the container is paused,
-- fails the check.
local function verdict(err)
  if retry.is_transient(err) then return nil, tostring(err) end
  return false, tostring(err)
end

-- The command has ended when its output has.
local function run_command(engine, id, check)
  local command <close>, err = exec.start(engine, id, { command = { check.command, table.unpack(check.args or {}) } })
  if not command then return verdict(err) end
  local last
  while true do
    local text = command.stream:read()
    if not text then break end
    last = text
  end
  local code
  code, err = command:exit_code()
  if err then return verdict(err) end
  if not code then return nil, "its output ended early" end
  if code == 0 then return true end
  local said = last and ": " .. last:gsub("%s+$", ""):sub(-200) or ""
  return false, ("'%s' ended with %d%s"):format(check.command, code, said)
end

function runners.exec(task, check)
  local command <close> = runtime.spawn(run_command, task.services.engine, task.container_id, check)
  local ok, why = command:await(check.timeout)
  if command:status() ~= "done" then return false, ("'%s' took more than %g s"):format(check.command, check.timeout) end
  return ok, why
end
runners.script = runners.exec

-- The job's own function, under the limits of a hook.
function runners.lua(task, check)
  local limits = setmetatable({ timeout = check.timeout }, { __index = task.services.hooks.limits })
  local ok, answer, why = call.call(limits, check.run, task:view())
  if not ok then return false, "the function " .. answer end
  if answer == nil and why == nil then return true end  -- nothing returned: it passes
  return answer and true or false, why or "the function returned false"
end

--- Runs a check once.
---@param task Task
---@param check table  a row of job/schema/lifecycle.lua, normalised
---@return boolean? ok   nil: unknown
---@return string? why not
function M.run(task, check) return runners[check.type](task, check) end

return M
