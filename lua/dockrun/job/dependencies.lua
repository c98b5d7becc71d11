--- Checks what the tasks of a group say about each other: which task waits for which, which one leads, and the ports of their
--- checks. Adds errors, and changes nothing.

local suggest = require "dockrun.job.suggest"

local M = {}

local function names_of(tasks)
  local names = {}
  for _, task in ipairs(tasks) do names[#names + 1] = task.name end
  return names
end

-- The order in which tasks start, by lifecycle hook; a main task has none.
local stages = { prestart = 1, main = 2, poststart = 3, poststop = 4 }

--- When a task runs in its group.
---@param task table  normalised
---@return "prestart"|"main"|"poststart"|"poststop" stage
function M.stage(task) return task.lifecycle and task.lifecycle.hook or "main" end
local stage = M.stage

local function dependencies(reading, task, by_name, names)
  for name, condition in pairs(task.depends_on or {}) do
    local path, other = ("%s.depends_on.%s"):format(reading.paths[task], name), by_name[name]
    if not other then
      reading.problems:add(path, ("the group has no task '%s'%s"):format(name, suggest.hint(name, names)))
    elseif other == task then
      reading.problems:add(path, "a task cannot depend on itself")
    elseif (stages[stage(other)] or 0) > (stages[stage(task)] or 0) then
      reading.problems:add(path, ("'%s' is a %s task, which starts after this one"):format(name, stage(other)))
    elseif condition == "completed" and other.lifecycle and other.lifecycle.sidecar then
      reading.problems:add(path, ("'%s' is a sidecar, which never completes by itself"):format(name))
    end
  end
end

-- The first circle of tasks that depend on each other: "a -> b -> a", and a task of it; nil if there is none.
local function circle(tasks, by_name)
  local done, trail, at = {}, {}, {}  -- visited; the tasks from the first to this one; their places in it
  local function visit(task)
    if done[task] then return nil end
    if at[task] then
      local names = names_of(table.move(trail, at[task], #trail, 1, {}))
      names[#names + 1] = task.name
      return table.concat(names, " -> ")
    end
    trail[#trail + 1] = task
    at[task] = #trail
    local following = {}
    for name in pairs(task.depends_on or {}) do following[#following + 1] = name end
    table.sort(following)
    for _, name in ipairs(following) do
      local found = by_name[name] and by_name[name] ~= task and visit(by_name[name])
      if found then return found end
    end
    done[task], at[task] = true, nil
    trail[#trail] = nil
  end
  for _, task in ipairs(tasks) do
    local found = task.depends_on and visit(task)
    if found then return found, task end
  end
end

local function leaders(reading, group)
  local leader
  for _, task in ipairs(group.tasks) do
    if task.leader and leader then
      reading.problems:add(reading.paths[task] .. ".leader", ("'%s' is the leader already; only one is allowed"):format(leader.name))
    end
    if task.leader and task.lifecycle then
      reading.problems:add(reading.paths[task] .. ".leader", "only a main task can be the leader; this one has a lifecycle block")
    end
    leader = leader or task.leader and task or nil
  end
end

-- type of a check -> whether the check has the key that it needs, the key, and its meaning.
local needs = {
  http = function(check, task) return check.port or #task.resources.network.ports == 1, "port", "the label of the port to request" end,
  tcp = function(check, task) return check.port or #task.resources.network.ports == 1, "port", "the label of the port to connect to" end,
  exec = function(check) return check.command, "command", "the command to run in the container" end,
  script = function(check) return check.command, "command", "the command to run in the container" end,
  lua = function(check) return check.run, "run", "the function to call" end,
}

local function health(reading, task)
  local labels = {}
  for _, port in ipairs(task.resources.network.ports or {}) do labels[#labels + 1] = port.label end
  for _, check in ipairs(task.checks or {}) do
    local path, need = reading.paths[check], needs[check.type or false]
    if need and task.resources.network.ports then
      local has, key, what = need(check, task)
      if not has then reading.problems:add(("%s.%s"):format(path, key), "is required: " .. what) end
    end
    local known = check.port == nil
    for _, label in ipairs(labels) do known = known or label == check.port end
    if not known then
      reading.problems:add(path .. ".port", ("the task has no port '%s'%s"):format(check.port, suggest.hint(check.port, labels)))
    end
  end
end

--- Checks a group. Each of its tasks must have been read and have its ports.
---@param reading Reading
---@param group table
function M.group(reading, group)
  local by_name, names = {}, names_of(group.tasks)
  for _, task in ipairs(group.tasks) do by_name[task.name or false] = task end
  for _, task in ipairs(group.tasks) do
    dependencies(reading, task, by_name, names)
    if task.checks and #task.checks > 0 and task.resources and task.resources.network then health(reading, task) end
  end
  local found, task = circle(group.tasks, by_name)
  if found then reading.problems:add(reading.paths[task] .. ".depends_on", "tasks depend on each other in a circle: " .. found) end
  leaders(reading, group)
end

return M
