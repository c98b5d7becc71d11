--- Builds the environment of a task: NOMAD_… variables, meta, and its own `env`.
--- { job = "web", alloc = "5a1f", ports = { http = 20001 } } -> { NOMAD_JOB_NAME = "web", NOMAD_HOST_PORT_http = "20001", … }
local upper = require("dockrun.job.ports").variable
local tables = require "dockrun.util.tables"

local M = {}

---@class EnvContext
---@field job { name: string, meta?: table<string, string> }
---@field group { name: string, meta?: table<string, string> }
---@field resolved { name: string, meta?: table, env?: table<string, string>, resources: { cpu: integer, memory: integer } }
---@field alloc { id: string, index: integer }
---@field ip string       the node's address
---@field ports { label: string, host_port: integer, container_port: integer }[]

-- An IPv6 address is in brackets before a port: RFC 3986, section 3.2.2.
local function address(ip, port) return (ip:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(ip, port) end

-- The value of NOMAD_PORT_…: the port to bind. A numeric label is that port already, so its variable has the host's port.
local function port_for_task(port) return port.label:find "^%d+$" and port.host_port or port.container_port end

local function add_ports(env, context)
  -- Upper-cased names first: if a label is another one in upper case, the label as written wins.
  for _, name_of in ipairs { upper, function(label) return label end } do
    for _, port in ipairs(context.ports) do
      local name = name_of(port.label)
      env["NOMAD_PORT_" .. name] = tostring(port_for_task(port))
      env["NOMAD_HOST_PORT_" .. name] = tostring(port.host_port)
      local ip = port.ip or context.ip
      env["NOMAD_IP_" .. name] = ip
      env["NOMAD_ADDR_" .. name] = address(ip, port.host_port)
    end
  end
end

--- The meta of a task: its job's, its group's and its own, the inner winning.
---@param ... { meta?: table<string, string> }  from the outside in
---@return table<string, string>
function M.meta(...)
  local meta = {}
  for _, level in ipairs { ... } do meta = tables.merge(meta, level.meta) end
  return meta
end

--- Builds it. The task's own `env` comes last and wins.
---@param context EnvContext
---@return table<string, string> env
function M.build(context)
  local job, group, task, alloc = context.job, context.group, context.resolved, context.alloc
  local env = {
    NOMAD_IP = context.ip,
    NOMAD_MEMORY_LIMIT = tostring(task.resources.memory), -- MB
    NOMAD_CPU_LIMIT = tostring(task.resources.cpu),       -- MHz
    NOMAD_ALLOC_ID = alloc.id,
    NOMAD_ALLOC_NAME = ("%s.%s[%d]"):format(job.name, group.name, alloc.index),
    NOMAD_ALLOC_INDEX = tostring(alloc.index),
    NOMAD_JOB_NAME = job.name,
    NOMAD_GROUP_NAME = group.name,
    NOMAD_TASK_NAME = task.name,
    NOMAD_ALLOC_DIR = "/alloc",
    NOMAD_TASK_DIR = "/local",
    NOMAD_SECRETS_DIR = "/secrets",
  }
  add_ports(env, context)
  for _, level in ipairs { job, group, task } do
    for _, key in ipairs(tables.keys(level.meta or {})) do env["NOMAD_META_" .. upper(key)] = level.meta[key] end
  end
  for name, value in pairs(task.env or {}) do env[name] = value end
  return env
end

return M
