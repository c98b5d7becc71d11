-- What an operator can set for a whole process: one table of names, types, defaults and meanings.
-- They come from `--config FILE` and `--set NAME=VALUE`; a few have a flag and an environment variable of their own. Every
-- value is checked, from each source and if a host program sets it: `read` and `check` of its row.
local capabilities = require "dockrun.driver.capabilities"
local validators = require "dockrun.job.validators"
local duration = require "dockrun.job.duration"
local limits = require "dockrun.job.limits"
local runtime = require "dockrun.core.runtime"
local types = require "dockrun.job.types"
local fs = require "dockrun.util.fs"
local uv = require "luv"

local M = {}

---@class OptionRow
---@field name string
---@field type "string"|"boolean"|"number"|"integer"|"duration"|"path"|"list"  a list is given as a table, or as text with
---  commas; a duration in seconds, or as Go writes it
---@field default any
---@field doc string
---@field check? Check   what is wrong with a value of the type; of a list, with each of its items
---@field absolute? boolean  a relative path is taken from the current directory when it is set

local range, one_of = validators.range, validators.one_of

local MOST_SECONDS = 2 ^ 63 // 1000000000  -- of a duration, see job/duration.lua

-- The row of validators.address accepts `${…}`, which is filled in for jobs only.
local function address(value)
  if value == "" then return nil end
  if validators.is_open(value) then return "must be an IP address, got " .. types.show(value) end
  return validators.address()(value)
end

local function above_zero(value)
  if value <= 0 then return ("must be above 0, got %s"):format(value) end
  return range(0, MOST_SECONDS)(value)
end

-- It is a part of a program's name.
local function helper(value)
  if not value:find "^[%w._-]*$" then return "must be a name such as 'pass', got " .. types.show(value) end
end

local function selinux_label(value)
  if not value:find "^[zZ]?$" then return "must be z or Z, got " .. types.show(value) end
end

local function capability(value)
  if not value:find "^[%a_]+$" then return "must be names of capabilities, or all, got " .. types.show(value) end
end

---@type OptionRow[]
M.rows = {
  { name = "docker.endpoint", type = "string", default = "unix:///var/run/docker.sock", doc = "where the Docker engine listens" },
  { name = "docker.tls.ca", type = "path", default = "", doc = "PEM file with the authority that signed the engine's certificate" },
  { name = "docker.tls.cert", type = "path", default = "", doc = "PEM file with our certificate for the engine" },
  { name = "docker.tls.key", type = "path", default = "", doc = "PEM file with that certificate's key" },
  { name = "docker.ssh", type = "list", default = { "ssh" }, check = validators.not_blank,
    doc = "the command for ssh:// endpoints, with options of its own" },
  { name = "docker.timeout", type = "number", default = 60, check = above_zero,
    doc = "seconds that the engine may take to answer" },
  { name = "docker.watch_interval", type = "number", default = 30, check = above_zero,
    doc = "seconds between two looks at which containers run, for what the engine's events did not tell" },
  { name = "docker.bind_ip", type = "string", default = "", check = address,
    doc = "address that ports are bound on; empty means all" },
  { name = "docker.cleanup.container", type = "boolean", default = true, doc = "remove the container of a stopped task" },
  { name = "docker.cleanup.image", type = "boolean", default = true,
    doc = "remove an image that dockrun pulled once nothing uses it" },
  { name = "docker.cleanup.image_delay", type = "duration", default = 180,
    doc = "how long an image that nothing uses stays; none at the end of `run` and `stop`" },
  { name = "gc.period", type = "duration", default = 300, doc = "how often `dockrun agent` looks for what no job owns; 0: never" },
  { name = "gc.creation_grace", type = "duration", default = 300, doc = "age below which nothing is taken for left over" },
  { name = "gc.job_threshold", type = "duration", default = 14400, doc = "how long a job that has ended is remembered" },
  { name = "docker.pull_timeout", type = "duration", default = 300, check = above_zero,
    doc = "seconds that a pull may take in all" },
  { name = "docker.pull_activity_timeout", type = "duration", default = 120, check = above_zero,
    doc = "seconds that a pull may go without progress" },
  { name = "docker.auth.config", type = "path", default = "", doc = "a config.json of Docker's with credentials for registries" },
  { name = "docker.auth.helper", type = "string", default = "", check = helper,
    doc = "NAME of a docker-credential-NAME that knows credentials" },
  { name = "docker.allow_privileged", type = "boolean", default = false, doc = "tasks may be privileged, and use the host's namespaces" },
  { name = "docker.allow_caps", type = "list", default = capabilities.default, check = capability,
    doc = "capabilities that tasks may have, or all" },
  { name = "docker.allow_runtimes", type = "list", default = { "runc", "nvidia" }, check = validators.not_blank,
    doc = "runtimes of the engine that tasks may name" },
  { name = "docker.allowed_modes.ipc", type = "list", default = { "none", "private", "shareable" },
    check = one_of("none", "private", "shareable", "host", "container"),
    doc = "of ipc_mode: none, private, shareable, host, container" },
  { name = "docker.allowed_modes.pid", type = "list", default = {}, check = one_of("host", "container"),
    doc = "of pid_mode: host, container" },
  { name = "docker.allowed_modes.userns", type = "list", default = {}, check = one_of "host", doc = "of userns_mode: host" },
  { name = "docker.allowed_modes.uts", type = "list", default = {}, check = one_of "host", doc = "of uts_mode: host" },
  { name = "docker.volumes.enabled", type = "boolean", default = false,
    doc = "tasks may bind paths outside of their own directories, and use volumes" },
  { name = "docker.volumes.selinuxlabel", type = "string", default = "", check = selinux_label,
    doc = "z or Z: SELinux label for what is bound" },
  { name = "docker.pids_limit", type = "integer", default = 0, check = range(0, 1 << 22),
    doc = "the most processes of a task; 0 for no limit" },
  { name = "docker.oom_score_adj", type = "integer", default = 0, check = range(0, 1000),
    doc = "the least that a task can ask for, and what it has if not" },
  { name = "ports.from", type = "integer", default = 20000, check = range(1, 65535), doc = "first host port for dynamic_ports" },
  { name = "ports.to", type = "integer", default = 60000, check = range(1, 65535), doc = "last host port for dynamic_ports" },
  { name = "hook_timeout", type = "duration", default = 30, check = above_zero, doc = "seconds that a hook may take" },
  { name = "hook_instructions", type = "integer", default = 50000000, check = range(0),
    doc = "instructions of Lua that a hook may run; 0 for no limit" },
  { name = "hook_seconds", type = "number", default = 2, check = range(0, MOST_SECONDS),
    doc = "seconds of the processor that a hook may use; 0 for no limit" },
  { name = "hook_memory", type = "number", default = 128, check = range(0, 1 << 40),
    doc = "MB of memory that a hook may use; 0 for no limit" },
  { name = "job_files", type = "list", default = {}, check = validators.absolute_path,
    doc = "directories, beside its own, in which a job may name files to read: for load, and seccomp profiles" },
  { name = "hooks", type = "path", default = "", doc = "Lua file with the operator's hooks" },
  { name = "state_dir", type = "path", check = validators.not_blank, absolute = true,
    doc = "directory for state and for the allocations' directories",
    default = function()
      if uv.getuid() == 0 then return "/var/lib/dockrun" end
      local base = os.getenv "XDG_STATE_HOME"
      return (base and base ~= "" and base or (os.getenv "HOME" or "") .. "/.local/state") .. "/dockrun"
    end },
  { name = "limits.job_bytes", type = "integer", default = limits.job_bytes, check = range(1, 64 << 20), doc = "bytes of a job file" },
  { name = "limits.job_seconds", type = "number", default = limits.job_seconds, check = above_zero,
    doc = "seconds of the processor that reading a job file may take" },
  { name = "limits.problems", type = "integer", default = limits.problems, check = range(1, 100000),
    doc = "problems of a job file that are told" },
  { name = "limits.allocs_per_job", type = "integer", default = limits.allocs_per_job, check = range(1, 1000000),
    doc = "allocations of a job: the counts of its groups together" },
  { name = "limits.allocs", type = "integer", default = 20000, check = range(1, 10000000),
    doc = "allocations of all jobs of a state directory that have not ended" },
  { name = "answer_timeout", type = "duration", default = 30, check = above_zero,
    doc = "how long another dockrun process may show no sign of life before a command that asked it gives up" },
  { name = "socket_group", type = "string", default = "", doc = "group whose members may use the sockets in the state directory" },
  { name = "dev", type = "boolean", default = false, doc = "read DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" },
  { name = "context", type = "string", default = "", doc = "docker context whose endpoint is used" },
}

local by_name = {}
for _, row in ipairs(M.rows) do by_name[row.name] = row end

local function text(value) return (type(value) == "string" or type(value) == "number") and tostring(value) or nil end

local function number(value)
  local read = type(value) == "number" and value or type(value) == "string" and tonumber(value)
  return read and read == read and math.abs(read) ~= math.huge and read or nil
end

local function words(value)
  local list = {}
  if type(value) == "table" then
    for i, one in ipairs(value) do list[i] = text(one) end
    for key in pairs(value) do
      if not list[key] then return nil end  -- a name, or what is no text
    end
  elseif text(value) then
    for one in text(value):gmatch "[^,%s]+" do list[#list + 1] = one end
  else
    return nil
  end
  return list
end

local booleans = { [true] = true, [false] = false, ["true"] = true, ["1"] = true, ["false"] = false, ["0"] = false }

---@class OptionType
---@field what string  in messages
---@field read fun(value: any): any  from text, or from a value of a file; nil if it is none

---@type table<string, OptionType>
local option_types = {
  string = { what = "a text", read = text },
  path = { what = "a path", read = function(value) return type(value) == "string" and not value:find "%z" and value or nil end },
  number = { what = "a number", read = number },
  integer = { what = "a whole number", read = function(value) return math.tointeger(number(value)) end },
  duration = { what = "a duration such as '1m30s' or a number of seconds",
    read = function(value) return text(value) and duration.parse(value) end },
  list = { what = "a list of texts", read = words },
  boolean = { what = "true or false", read = function(value) return booleans[value] end },
}

-- What options mean together: { the option to blame, what is wrong }.
---@type { [1]: string, [2]: fun(options: table<string, any>): string? }[]
local together = {
  { "ports.to", function(options)
    if options["ports.to"] < options["ports.from"] then
      return ("must not be below ports.from, which is %d, got %d"):format(options["ports.from"], options["ports.to"])
    end
  end },
}

local function wrong(name, why) return runtime.error("invalid", ("option '%s' %s"):format(name, why)) end

--- A row's default, worked out where it depends on who runs dockrun.
---@param row OptionRow
---@return any
function M.default(row)
  if type(row.default) == "function" then return row.default() end
  return row.default
end

--- The defaults.
---@return table<string, any> options  by their dotted names
function M.new()
  local options = {}
  for _, row in ipairs(M.rows) do options[row.name] = M.default(row) end
  return options
end

-- What a value means to an option; nil, what is wrong with it.
local function read(row, value)
  local kind = option_types[row.type]
  local result = kind.read(value)
  if result == nil then return nil, ("must be %s, got %s"):format(kind.what, types.show(value)) end
  for _, one in ipairs(row.check and (row.type == "list" and result or { result }) or {}) do
    local why = row.check(one)
    if why then return nil, why end
  end
  if row.absolute and not result:find "^/" then result = ("%s/%s"):format(uv.cwd(), result) end
  return result
end

--- Sets one option from its text or value.
---@param options table<string, any>
---@param name string
---@param value any
---@return true? ok
---@return table? err  kind "invalid", names the option
function M.set(options, name, value)
  local row = by_name[name]
  if not row then return nil, runtime.error("invalid", ("no option '%s'; `dockrun help options` lists them"):format(name)) end
  local result, why = read(row, value)
  if result == nil then return nil, wrong(name, why) end
  options[name] = result
  return true
end

--- Checks all options, each alone and what they mean together: a host program sets them as it likes.
---@param options table<string, any>
---@return true? ok
---@return table? err  kind "invalid", names the option
function M.check(options)
  for _, row in ipairs(M.rows) do
    local result, why = read(row, options[row.name])
    if result == nil then return nil, wrong(row.name, why) end
  end
  for _, rule in ipairs(together) do
    local why = rule[2](options)
    if why then return nil, wrong(rule[1], why) end
  end
  return true
end

local function set_all(options, values, prefix)
  for key, value in pairs(values) do
    local name = prefix .. tostring(key)
    if type(value) == "table" and not by_name[name] then
      local ok, err = set_all(options, value, name .. ".")
      if not ok then return nil, err end
    else
      local ok, err = M.set(options, name, value)
      if not ok then return nil, err end
    end
  end
  return true
end

local LONGEST = 8 << 20  -- bytes of a config file

--- Sets options from a file: Lua that returns a table, or JSON; nested tables make dotted names.
---@param options table<string, any>
---@param path string
---@param accept? fun(stat: table): string?  why such a file (as of uv.fs_fstat) is not read
---@return true? ok
---@return table? err  kind "invalid", names the file
function M.read_file(options, path, accept)
  local source, why = fs.read_any(path, LONGEST, accept)
  if not source then return nil, runtime.error("invalid", ("cannot read the config: %s"):format(why)) end
  source = source:gsub("^\xEF\xBB\xBF", "")  -- without a byte order mark
  local values, err
  if path:match "%.json$" then
    values, err = require("dockrun.core.json").decode(source)
  else
    local chunk
    chunk, err = load(source, "@" .. path, "t", {})
    if chunk then
      local ok, result = pcall(chunk)
      values, err = ok and result or nil, not ok and result or err
    end
  end
  if type(values) ~= "table" then
    return nil, runtime.error("invalid", ("%s: not a table of options%s"):format(path, err and ": " .. tostring(err) or ""))
  end
  local ok
  ok, err = set_all(options, values, "")
  if not ok then err.message = ("%s: %s"):format(path, err.message) end
  return ok, err
end

return M
