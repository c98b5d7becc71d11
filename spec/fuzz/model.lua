--- Random jobs, not yet in any language: a block is { items }, an item { key, label?, value }, a list { list }, and a
--- scalar that may as well be quoted { loose }.

local schema = require "dockrun.job.schema"

local M = {}

---@class FuzzItem
---@field key string
---@field label? string
---@field value any
---@field exact? boolean  kept as it is written: one block is not a list of one

local function add(block, key, value, label)
  table.insert(block.items, { key = key, value = value, label = label })
end

-- Adds the result of `make`, half of the time.
local function maybe(r, block, key, make)
  if r:one_in(2) then add(block, key, make()) end
end

local letters = { "a", "b", "c", "x1", "web", "redis", "name", "config", "count", "task", "Z", "9", "0" }

local function name(r, taken)
  local text
  repeat
    text = r:pick(letters)
    for _ = 1, r:int(0, 2) do text = text .. r:pick { "-", "_", ".", "" } .. r:pick(letters) end
  until not taken[text]
  taken[text] = true
  return text
end

local function loose(value) return { loose = value } end

local function scalar(r)
  return r:pick { function() return r:text() end, function() return r:int(-5, 100000) end, function() return r:int(-80, 80) / 8 end,
    function() return r:one_in(2) end }()
end

-- Keys and scalars, for blocks whose keys the user chooses.
local function map(r, key_of)
  local block, taken = { items = {} }, {}
  for _ = 1, r:int(0, 4) do
    local key = key_of and key_of() or r:text(3)
    if not taken[key] then add(block, key, scalar(r)) end
    taken[key] = true
  end
  return block
end

-- A tree of any values: dockrun keeps blocks that it does not use.
local function anything(r, depth)
  local kind = depth > 2 and 1 or r:int(1, 4)
  if kind <= 2 then return scalar(r) end
  if kind == 3 then return { list = r:some(0, 3, function() return anything(r, depth + 1) end) } end
  local block, taken = { items = {} }, {}
  for _ = 1, r:int(0, 3) do
    local key = r:one_in(3) and r:text(2) or r:pick(letters)
    if not taken[key] then table.insert(block.items, { key = key, value = anything(r, depth + 1), exact = true }) end
    taken[key] = true
  end
  return block
end

local function unused(r, rows, block)
  for _, row in ipairs(rows) do
    if row.unused and r:one_in(12) then
      table.insert(block.items, { key = row.name, value = anything(r, 1), exact = true })
    end
  end
end

local function duration(r) return r:pick { loose(r:int(0, 600)), "1m30s", "300ms", "2h", "0.5s", r:int(0, 8) / 8 } end

local function constraint(r)
  return { items = {
    { key = "attribute", value = "${attr." .. r:pick(letters) .. "}" },
    { key = "operator", value = r:pick { "=", "!=", "<", "set_contains" } },
    { key = "value", value = "v" .. r:text() },
  } }
end

local function common(r, block)
  maybe(r, block, "meta", function() return map(r) end)
  for _ = 1, r:int(0, 3) // 2 do add(block, "constraint", constraint(r)) end
end

-- Ports that differ from all others of the job: `count` counts them.
local function network(r, count, config)
  local block, lists = { items = {} }, { dynamic_ports = { list = {} }, reserved_ports = { list = {} } }
  local mapped = { items = {} }
  local function next_port()
    count.ports = count.ports + 1
    return count.ports
  end
  maybe(r, block, "mbits", function() return loose(r:int(1, 1000)) end)
  for _ = 1, r:int(0, 4) do
    local port = next_port()
    local kind = r:int(1, 4)
    if kind == 1 then
      table.insert(lists.dynamic_ports.list, r:pick { loose(port), "p" .. port, "p_-" .. port })
    elseif kind == 2 then
      table.insert(lists.reserved_ports.list, loose(port))
    else
      local body, label = { items = {} }, "q" .. port
      maybe(r, body, "static", function() return loose(next_port()) end)
      if kind == 3 then add(body, "to", loose(r:int(1, 65535))) else add(mapped, label, loose(r:int(1, 65535))) end
      add(block, "port", body, label)
    end
  end
  for _, key in ipairs { "dynamic_ports", "reserved_ports" } do
    if #lists[key].list > 0 or r:one_in(4) then add(block, key, lists[key]) end
  end
  if #mapped.items > 0 and r:one_in(2) then add(config, "port_map", mapped) end
  return block
end

local function env_key(r)
  return function() return (r:text(3) .. "E"):gsub("=", "") end
end

local function restart(r)
  local block = { items = {} }
  maybe(r, block, "attempts", function() return loose(r:int(0, 9)) end)
  maybe(r, block, "interval", function() return duration(r) end)
  maybe(r, block, "delay", function() return duration(r) end)
  maybe(r, block, "mode", function() return r:pick { "delay", "fail" } end)
  return block
end

local function resources(r, count, config)
  local block = { items = {} }
  maybe(r, block, "cpu", function() return loose(r:int(1, 4000)) end)
  maybe(r, block, "memory", function() return loose(r:int(1, 4000)) end)
  maybe(r, block, "network", function() return network(r, count, config) end)
  unused(r, schema.resources, block)
  return block
end

local function task(r, count)
  local block, config = { items = {} }, { items = { { key = "image", value = r:pick { "redis:7", "busybox", "localhost:5000/a/b:1" } } } }
  maybe(r, block, "driver", function() return "docker" end)
  common(r, block)
  if r:one_in(2) then
    add(config, "command", "sh" .. r:text())
    maybe(r, config, "args", function() return { list = r:some(0, 4, function() return scalar(r) end) } end)
  end
  maybe(r, block, "resources", function() return resources(r, count, config) end)
  add(block, "config", config)
  maybe(r, block, "env", function() return map(r, env_key(r)) end)
  maybe(r, block, "kill_signal", function() return r:pick { "SIGINT", "HUP", "9" } end)
  maybe(r, block, "kill_timeout", function() return duration(r) end)
  maybe(r, block, "restart", function() return restart(r) end)
  unused(r, schema.task, block)
  return block
end

--- A job that every reader must accept.
---@param r Random
---@return FuzzItem
function M.job(r)
  local job, count, groups = { items = {} }, { ports = r:int(1, 20000) }, {}
  maybe(r, job, "type", function() return r:pick { "service", "batch" } end)
  common(r, job)
  unused(r, schema.job, job)
  for _ = 1, r:int(0, 3) do
    local group, tasks = { items = {} }, {}
    maybe(r, group, "count", function() return loose(r:int(0, 4)) end)
    common(r, group)
    maybe(r, group, "restart", function() return restart(r) end)
    unused(r, schema.group, group)
    for _ = 1, r:int(0, 3) do add(group, "task", task(r, count), name(r, tasks)) end
    add(job, "group", group, name(r, groups))
  end
  for _ = 1, r:int(0, 3) // 2 do add(job, "task", task(r, count), name(r, groups)) end
  return { key = "job", label = name(r, {}), value = job }
end

return M
