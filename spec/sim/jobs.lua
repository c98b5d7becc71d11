-- Jobs for the simulation, by its seed: their programs and exits, restart policies, order, ports and hooks.
local programs = require "spec.sim.programs"
local runtime = require "dockrun.core.runtime"

local M = {}

--- Images: on the host from the beginning, or in the registry; the last does not exist.
M.here, M.checked_here = "here:1", "here:checked"
M.registry = { "app:1", "app:latest", "app:checked" }
M.nowhere = "nowhere:1"

-- Few static ports, so that jobs compete for them.
local STATIC = 30000

---@class Dice  seeded choices
local Dice = {}
Dice.__index = Dice

---@param random fun(n?: integer): number
---@return Dice
function M.dice(random) return setmetatable({ random = random }, Dice) end

function Dice:chance(p) return self.random() < p end
function Dice:pick(list) return list[self.random(#list)] end

--- Seconds, small ones as likely as large ones.
function Dice:between(least, most) return least * (most / least) ^ self.random() end

-- Rounded, so that it is the same in JSON and in text.
local function seconds(value) return math.floor(value * 100 + 0.5) / 100 end

-- ---- programs -----------------------------------------------------------------------------------

-- Without the script itself: only a real engine needs it.
local function command_of(made) return programs.command(made, "…") end

local function program(dice, finite)
  local made = {}
  if finite or dice:chance(0.3) then
    made.run = seconds(dice:between(0.05, 15))
    made.exit = dice:chance(0.5) and 0 or dice:pick { 1, 3 }
    made.oom = dice:chance(0.1) and 1 or nil
  end
  made.ignore = dice:chance(0.15) and 1 or nil
  made.term = dice:chance(0.2) and 0 or nil
  if dice:chance(0.3) then made.well = seconds(dice:between(0.5, 10)) end
  if dice:chance(0.2) then made.sick = seconds((made.well or 0) + dice:between(1, 20)) end
  return made
end

local function image(dice)
  if dice:chance(0.03) then return M.nowhere end
  return dice:pick { M.here, M.checked_here, table.unpack(M.registry) }
end

local function restart(dice)
  if dice:chance(0.25) then return { attempts = 0 } end
  return {
    attempts = dice.random(3), interval = seconds(dice:between(5, 60)), delay = seconds(dice:between(0.1, 5)),
    mode = dice:pick { "fail", "delay" },
  }
end

local function network(dice, number)
  if dice:chance(0.4) then return nil end
  local made = { dynamic_ports = { "http" .. number } }
  if dice:chance(0.3) then made.dynamic_ports[2] = tostring(6379 + number) end
  if dice:chance(0.15) then made.reserved_ports = { STATIC + number } end
  return made
end

-- ---- health -------------------------------------------------------------------------------------

local function check(dice, port)
  local kind = dice:pick(port and { "http", "tcp", "exec", "lua" } or { "exec", "lua" })
  local made = { type = kind, interval = seconds(dice:between(0.5, 5)), timeout = 1, failure_threshold = dice.random(3) }
  if kind == "http" or kind == "tcp" then made.port = port end
  if kind == "exec" then made.command = "look" end
  if kind == "lua" then
    local odds = dice.random()
    made.run = function() return dice.random() < odds end
  end
  if dice:chance(0.4) then made.check_restart = { limit = dice.random(3), grace = dice.random(3) } end
  return made
end

-- ---- hooks --------------------------------------------------------------------------------------

local NAMES = {
  "received", "setup", "ports", "pull", "pulled", "create", "created", "prestart", "started", "healthy", "unhealthy", "oom",
  "exited", "restart", "kill", "killed", "stopped", "cleanup", "failed",
}

-- Hook functions: (world) -> the hook's results.
local deeds = {
  nothing = function() end,
  veto = function() return false, "a veto of the simulation" end,
  raise = function() error(runtime.error("simulated", "an error of the simulation"), 0) end,
  raise_nil = function() error(nil) end,
  slow = function(world) world.sched:wait(0.7) end,
  hang = function(world) world.sched:wait(1e6) end,
  stop = function(_, task) task.stop "a hook wants it" end,
}

local function hooks(dice, world)
  local made = {}
  for _ = 1, dice.random(2) do
    local deed = deeds[dice:pick { "nothing", "slow", "slow", "veto", "raise", "raise_nil", "hang", "stop" }]
    made[dice:pick(NAMES)] = function(task) return deed(world, task) end
  end
  if dice:chance(0.3) then made.on_error = "ignore" end
  return made
end

-- ---- tasks, groups, jobs ------------------------------------------------------------------------

local function task(dice, world, finite, number)
  local ports = network(dice, number)
  local command = dice:chance(0.03) and { "no-such-command" } or command_of(program(dice, finite))
  local made = {
    driver = "docker", restart = restart(dice), kill_timeout = dice.random(3),
    config = { image = image(dice), command = command[1], args = { table.unpack(command, 2) } },
    resources = { cpu = 100, memory = 32, network = ports },
    env = { VERSION = "1" },
  }
  if dice:chance(0.1) then made.shutdown_delay = 1 end
  if dice:chance(0.1) then made.kill_signal = "SIGINT" end
  if dice:chance(0.3) then made.check = { check(dice, ports and ports.dynamic_ports[1]) } end
  if dice:chance(0.25) then made.hooks = hooks(dice, world) end
  return made
end

-- The order of the tasks in a group.
local function order(dice, tasks, names)
  if dice:chance(0.3) then tasks[names[1]].leader = true end
  for i = 2, #names do
    local one = tasks[names[i]]
    local way = dice.random(5)
    if way == 1 then
      one.lifecycle = { hook = dice:pick { "prestart", "poststart", "poststop" } }
      local finite = programs.parse({ one.config.command, table.unpack(one.config.args) })
      if finite then  -- these have an end
        finite.run, finite.exit = finite.run or 0.3, dice:chance(0.8) and 0 or 1
        one.config.args = { table.unpack(command_of(finite), 2) }
      end
    elseif way == 2 then
      one.lifecycle = { hook = dice:pick { "prestart", "poststart" }, sidecar = true }
    elseif way == 3 then
      one.depends_on = { [names[1]] = dice:pick { "started", "healthy", "completed" } }
    end
  end
end

local function group(dice, world, batch, number)
  local made, names = { count = dice:chance(0.25) and 2 or 1, task = {} }, {}
  for i = 1, dice:pick { 1, 1, 2, 3 } do
    names[i] = ("task%d"):format(i)
    made.task[names[i]] = task(dice, world, batch, number + i)
  end
  if #names > 1 and dice:chance(0.7) then order(dice, made.task, names) end
  if dice:chance(0.3) then
    made.update = {
      max_parallel = dice.random(2), min_healthy_time = dice.random(2), healthy_deadline = 15, auto_revert = dice:chance(0.5),
    }
  end
  return made
end

--- Makes a job, as a job file returns it before it is normalised.
---@param random fun(n?: integer): number
---@param world World
---@param name string
---@return table raw
function M.make(random, world, name)
  local dice = M.dice(random)
  local batch = dice:chance(0.35)
  local job = { type = batch and "batch" or "service", group = {} }
  for i = 1, dice:chance(0.2) and 2 or 1 do job.group[("group%d"):format(i)] = group(dice, world, batch, 10 * i) end
  if dice:chance(0.15) then job.hooks = hooks(dice, world) end
  return { job = { [name] = job } }
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local made = {}
  for key, item in pairs(value) do made[key] = copy(item) end
  return made
end

--- Changes a job: other limits, another environment, another count or restart policy.
---@param random fun(n?: integer): number
---@param raw table
---@return table raw
---@return string what
function M.change(random, raw)
  local dice = M.dice(random)
  raw = copy(raw)
  local _, job = next(raw.job)
  local one = job.group[("group%d"):format(random(job.group.group2 and 2 or 1))]
  local which = one.task.task1
  local what = dice:pick { "limits", "environment", "count", "restart policy" }
  if what == "limits" then
    which.resources.memory = which.resources.memory + 8
  elseif what == "environment" then
    which.env.VERSION = tostring(tonumber(which.env.VERSION) + 1)
  elseif what == "count" then
    one.count = one.count % 2 + 1
  else
    which.restart = restart(dice)
  end
  return raw, what
end

--- The poststop tasks: an update does not wait for them.
---@param raw table
---@return table<string, boolean>  by "group task"
function M.last(raw)
  local _, job = next(raw.job)
  local last = {}
  for place, one in pairs(job.group) do
    for name, each in pairs(one.task) do last[place .. " " .. name] = each.lifecycle ~= nil and each.lifecycle.hook == "poststop" end
  end
  return last
end

--- Whether old and new allocations run at once during an update of a job.
---@param raw table
---@return boolean
function M.rolls(raw)
  local _, job = next(raw.job)
  for _, one in pairs(job.group) do
    if one.update then return true end
  end
  return false
end

return M
