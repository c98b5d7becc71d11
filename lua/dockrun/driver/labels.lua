--- What a container carries so that another process knows it: its name and its labels. What they say is a claim of the
--- container's maker; whether to believe it is decided in containers.lua.
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"
local tables = require "dockrun.util.tables"

local M = {}

M.key = {
  job = "dockrun.job", group = "dockrun.group", task = "dockrun.task", alloc = "dockrun.alloc", index = "dockrun.index",
  spec = "dockrun.spec", runtime = "dockrun.runtime", ports = "dockrun.ports",
  kill_timeout = "dockrun.kill_timeout", state = "dockrun.state", definition = "dockrun.definition", alloc_dir = "dockrun.alloc_dir",
  intent = "dockrun.intent", type = "dockrun.type",
}

--- The name of a task's container.
---@param task string
---@param alloc_id string
---@return string
function M.container_name(task, alloc_id) return task .. "-" .. alloc_id end

--- A short name for a text, the same in every process: FNV-1a, 64 bits (www.isthe.com/chongo/tech/comp/fnv).
---@param text string
---@return string hex
function M.hash(text)
  local hash = 0xcbf29ce484222325
  for byte in text:gmatch "." do hash = (hash ~ byte:byte()) * 0x100000001b3 end
  return ("%016x"):format(hash)
end

local function canonical(value)
  if type(value) ~= "table" then return type(value) == "function" and "function" or tostring(value) end
  local parts = {}
  for key, item in pairs(value) do parts[#parts + 1] = tostring(key) .. "=" .. canonical(item) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Everyone who can ask the engine can read its labels.
local function without_credentials(task)
  local copy = tables.merge(task)
  copy.config = tables.merge(task.config)
  copy.config.auth = nil
  return copy
end

--- A short name for what a task is: equal for equal tasks.
---@param task table
---@return string hex
function M.spec_hash(task) return M.hash(canonical(without_credentials(task))) end

--- A task as a later `plan` compares it: its JSON, as the job has it, without functions (they have no text) and without
--- credentials.
---@param task table
---@param meta? table<string, string>  of its job, its group and its own: its environment has them all
---@return string
function M.definition(task, meta)
  local plain = tables.copy_data(without_credentials(task))
  plain.hooks, plain.meta = nil, meta or plain.meta
  return json.encode(plain)
end

--- The labels of a task's container: the job's own, and dockrun's over them.
---@param context TaskContext
---@return table<string, string>
function M.of(context)
  local task, labels, key = context.resolved, tables.merge(context.resolved.config.labels), M.key
  labels[key.job] = context.job.name
  labels[key.group] = context.group.name
  labels[key.task] = task.name
  labels[key.alloc] = context.alloc.id
  labels[key.index] = tostring(context.alloc.index)
  labels[key.spec] = M.spec_hash(task)
  labels[key.runtime] = "dockrun/" .. runtime.version
  labels[key.ports] = json.encode(json.array(context.ports))
  labels[key.kill_timeout] = tostring(task.kill_timeout)
  labels[key.state] = context.state_id
  labels[key.definition] = M.definition(context.spec or task, context.meta)
  labels[key.alloc_dir] = context.dirs and context.dirs.root
  labels[key.intent], labels[key.type] = context.intent, context.job.type
  return labels
end

--- Remembers dockrun's labels of a create body, by which its container is found again.
---@param body table
---@return fun() keep  puts them back, whatever hooks have made of them
function M.keeper(body)
  local before = tables.merge(body.Labels)
  return function()
    for name, value in pairs(before) do
      if name:find "^dockrun%." then body.Labels[name] = value end
    end
  end
end

return M
