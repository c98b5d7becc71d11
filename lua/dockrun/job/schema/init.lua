--- The schema of a job file: one row per key. The rows drive reading, defaults, validators, error messages, `help config` and
--- docs/config.md.
---
--- A replacement of this file must have the lists of rows that it has here, and `describe`.

local validators = require "dockrun.job.validators"
local rows_of = require "dockrun.job.schema.rows"
local lifecycle = require "dockrun.job.schema.lifecycle"
local types = require "dockrun.job.types"

local M = {}

---@class SchemaRow
---@field name string       the key, in a file and in the normalised job
---@field also? string      another key for the same: `group` for `groups`; a file may have both
---@field was? string       the key of older job files
---@field older? fun(value: any): any  a value of older job files -> the value as it is written now
---@field type string       a scalar of types.lua, or list, map, block, blocks, named, hooks, any
---@field of? string        list, map: the type of each item
---@field rows? SchemaRow[] block, blocks, named: the rows of the block
---@field label? string     named: the key of the label ("name")
---@field default? any      value of an absent key; a table is read as if the file had it: {} is an empty block
---@field required? boolean
---@field values? string[]  the allowed strings
---@field check? Check      see validators.lua; list, map: for each item
---@field check_key? fun(key: string): string?  map: the problem of a key
---@field unused? boolean   known to Nomad, without meaning on a single host: kept, with a warning
---@field hidden? boolean   not for users to write, so not in the help
---@field engine? string   the field of the engine's create body that it becomes
---@field policy? string[]  the agent's options that limit it
---@field doc string

local at_least, join, unused = validators.range, rows_of.join, rows_of.unused

local function driver(value)
  if value ~= "docker" then return ("driver '%s' is not supported; the only one is 'docker'"):format(value) end
end

-- signal(7), by the names and numbers of Linux; the engine takes both. The C library has 32 and 33 for itself.
local signals = {}
for name in ([[ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT RTMIN RTMAX SEGV STKFLT STOP SYS
  TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ]]):gmatch "%S+" do signals[name] = true end
for i = 1, 15 do signals["RTMIN+" .. i] = true end
for i = 1, 14 do signals["RTMAX-" .. i] = true end
for i = 1, 64 do signals[tostring(i)] = i ~= 32 and i ~= 33 end

local function signal(value)
  if not signals[value:upper():gsub("^SIG(%u)", "%1")] then
    return ("must be a signal such as SIGTERM, 15 or SIGRTMIN+3, got %s"):format(types.show(value))
  end
end

local function env_name(key)
  if key == "" or key:find "[=%z]" then return "is not a name for an environment variable" end
end

local meta = { name = "meta", type = "map", of = "string", default = {},
  doc = "data of your own; a task's wins over a group's, a group's over a job's" }
local hooks = { name = "hooks", type = "hooks", default = {}, doc = "functions named after a transition; only in .lua files" }

local operators = {
  "=", "==", "is", "!=", "not", ">", ">=", "<", "<=", "regexp", "version", "semver", "set_contains", "set_contains_all",
  "set_contains_any", "is_set", "is_not_set", "distinct_hosts", "distinct_property",
}

M.constraint = join({
  { name = "attribute", type = "string", doc = "attribute of the host: $attr.kernel.name or ${attr.kernel.name}" },
  { name = "operator", type = "string", default = "=", values = operators, doc = "how to compare it with the value" },
  { name = "value", type = "string", doc = "the value to compare it with" },
  { name = "version", type = "string", doc = "short for operator = \"version\" with this value" },
  { name = "regexp", type = "string", doc = "short for operator = \"regexp\" with this value" },
  { name = "distinct_hosts", type = "boolean", doc = "short for that operator" },
  { name = "distinct_property", type = "string", doc = "short for that operator with this attribute" },
  { name = "set_contains", type = "string", doc = "short for that operator with this value" },
}, unused "hard weight")
local constraints = {
  name = "constraints", also = "constraint", type = "blocks", rows = M.constraint, default = {},
  doc = "conditions on the host",
}

M.restart = join({
  { name = "attempts", type = "integer", check = at_least(0), doc = "restarts within the interval; 2, or 3 for a batch job" },
  { name = "interval", type = "duration", doc = "30m, or 24h for a batch job" },
  { name = "delay", type = "duration", doc = "wait before a restart; 15s" },
  { name = "mode", type = "string", values = { "delay", "fail" },
    doc = "after the last attempt: wait for the next interval, or fail (default)" },
}, unused "render_templates on_success")
local update = {
  name = "update", type = "block", doc = "how to replace running allocations; left out, all at once",
  rows = join(lifecycle.update, unused "stagger health_check canary auto_promote progress_deadline"),
}
local restart = { name = "restart", type = "block", rows = M.restart, doc = "when to restart a task that ended" }

M.port = join({
  { name = "label", type = "label", required = true, doc = "the port's name" },
  { name = "static", type = "port", doc = "exactly this port of the host" },
  { name = "to", type = "target", doc = "port in the container; -1: the host's; left out, the label's number or the host's" },
}, unused "host_network ignore_collision")

M.network = join({
  { name = "mbits", type = "integer", check = at_least(1), doc = "bandwidth; recorded, but not enforced" },
  { name = "dynamic_ports", type = "list", of = "label", default = {}, doc = "ports of the host, chosen at random" },
  { name = "reserved_ports", type = "list", of = "port", default = {}, doc = "exactly these ports of the host" },
  { name = "port", type = "named", label = "label", rows = M.port, doc = "port \"label\" { static = N, to = N }" },
  { name = "ports", type = "named", label = "label", rows = M.port, hidden = true, doc = "all ports of the normalised job" },
}, unused "mode cidr ip device hostname dns public")

M.io_device = {
  { name = "path", type = "string", required = true, check = validators.absolute_path, doc = "the device on the host" },
  { name = "read_bps", type = "integer", check = at_least(1), engine = "HostConfig.BlkioDeviceReadBps", doc = "bytes per second" },
  { name = "write_bps", type = "integer", check = at_least(1), engine = "HostConfig.BlkioDeviceWriteBps", doc = "bytes per second" },
  { name = "read_iops", type = "integer", check = at_least(1), engine = "HostConfig.BlkioDeviceReadIOps", doc = "reads per second" },
  { name = "write_iops", type = "integer", check = at_least(1), engine = "HostConfig.BlkioDeviceWriteIOps", doc = "writes per second" },
}

M.io = {
  { name = "weight", type = "integer", check = at_least(10, 1000), engine = "HostConfig.BlkioWeight",
    doc = "share of disk time, 10 to 1000" },
  { name = "device", type = "named", label = "path", rows = M.io_device, doc = "device \"/dev/sda\" { read_bps = N, … }" },
}

M.resources = join({
  { name = "cpu", type = "integer", default = 100, check = at_least(1), engine = "HostConfig.CpuShares", doc = "MHz" },
  { name = "memory", type = "integer", default = 300, check = at_least(1, (1 << 43) - 1), engine = "HostConfig.Memory",
    doc = "MB; there is no swap" },
  { name = "network", type = "block", rows = M.network, default = {}, engine = "HostConfig.PortBindings", doc = "ports" },
  { name = "io", type = "block", rows = M.io, doc = "disks" },
}, unused "cores device disk disk_mb iops memory_max numa secrets")

M.config = require "dockrun.job.schema.docker_options"

M.task = join({
  { name = "name", type = "name", required = true, doc = "unique in its group" },
  { name = "driver", type = "string", default = "docker", check = driver, doc = "the only one is docker" },
  { name = "config", type = "block", rows = M.config, default = {}, doc = "the container" },
  { name = "env", type = "map", of = "string", check_key = env_name, default = {}, engine = "Env",
    doc = "environment; wins over variables that dockrun sets" },
  meta, constraints, hooks, restart,
  { name = "user", type = "string", engine = "User", doc = "user[:group]; left out, the image's" },
  { name = "kill_signal", type = "string", check = signal, engine = "StopSignal",
    doc = "signal that stops the task; left out, the image's STOPSIGNAL, or SIGTERM" },
  { name = "kill_timeout", type = "duration", default = 5, engine = "StopTimeout", doc = "wait between that signal and SIGKILL" },
  { name = "resources", type = "block", rows = M.resources, default = {}, doc = "what the task may use" },
}, lifecycle.task, unused [[action affinity artifact check_restart consul csi_plugin discover dispatch_payload identity kind logs scaling
  schedule secret service template vault volume_mount]])

M.group = join({
  { name = "name", type = "name", required = true, doc = "unique in its job" },
  { name = "count", type = "integer", default = 1, check = at_least(0), doc = "number of allocations; 0 for none" },
  meta, constraints, hooks, restart, update,
  { name = "network", type = "block", rows = M.network, doc = "ports that tasks use with config.ports" },
  { name = "tasks", also = "task", type = "named", rows = M.task, default = {}, doc = "tasks that run together" },
}, unused [[affinity check consul disconnect disk ephemeral_disk max_client_disconnect migrate prevent_reschedule_on_lost
  reschedule scaling service shutdown_delay spread stop_after_client_disconnect vault volume]])

M.job = join({
  { name = "name", type = "name", required = true, doc = "the job's name" },
  { name = "type", type = "string", default = "service", values = { "service", "batch", "system", "sysbatch" },
    doc = "batch: exit code 0 is success; here system is service, sysbatch is batch" },
  meta, constraints, hooks, update,
  { name = "groups", also = "group", type = "named", rows = M.group, default = {}, doc = "tasks that are counted together" },
  { name = "tasks", also = "task", type = "named", rows = M.task, default = {}, doc = "a task here is a group of the same name" },
  { name = "warnings", type = "any", hidden = true, doc = "warnings of the reader" },
}, unused [[affinity all_at_once check consul consul_namespace consul_token datacenters id migrate
  multiregion namespace node_pool parameterized periodic priority region reschedule service spread ui vault
  vault_namespace vault_token]])

--- The top of a file: one job.
M.file = { { name = "job", type = "named", rows = M.job, doc = "the job; a file holds one" } }

---@class SchemaHelp
---@field path string      "job.group.task.config.image"
---@field type string      "string", "list of string", …
---@field default? any
---@field required boolean
---@field unused boolean
---@field values? string[]
---@field engine? string
---@field policy? string[]
---@field again boolean     the same rows are further up, under another path
---@field doc string

local function describe(rows, prefix, into, seen)
  local again = seen[rows] or false
  seen[rows] = true
  for _, row in ipairs(rows) do
    if not row.hidden then
      local path, default = prefix .. (row.also or row.name), row.default
      if type(default) == "table" then default = nil end
      into[#into + 1] = {
        path = path, type = row.of and ("%s of %s"):format(row.type, row.of) or row.type, values = row.values, doc = row.doc,
        required = row.required or false, unused = row.unused or false, engine = row.engine, policy = row.policy,
        default = default, again = again,
      }
      if row.rows then describe(row.rows, path .. ".", into, seen) end
    end
  end
  return into
end

--- Every key, in the order of the rows, for help.
---@return SchemaHelp[]
function M.describe() return describe(M.file, "", {}, {}) end

return M
