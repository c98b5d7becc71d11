-- What an operator can set for a whole process: one table of names, types, defaults and meanings.
-- They come from `--config FILE` and `--set NAME=VALUE`; a few have a flag of their own.
local capabilities = require "dockrun.driver.capabilities"
local duration = require "dockrun.job.duration"
local runtime = require "dockrun.core.runtime"
local uv = require "luv"

local M = {}

---@class OptionRow
---@field name string
---@field type "string"|"boolean"|"number"|"duration"|"path"|"list"  a list is given as a table, or as text with commas; a
---  duration in seconds, or as Go writes it
---@field default any
---@field doc string

---@type OptionRow[]
M.rows = {
  { name = "docker.endpoint", type = "string", default = "unix:///var/run/docker.sock", doc = "where the Docker engine listens" },
  { name = "docker.tls.ca", type = "path", default = "", doc = "PEM file with the authority that signed the engine's certificate" },
  { name = "docker.tls.cert", type = "path", default = "", doc = "PEM file with our certificate for the engine" },
  { name = "docker.tls.key", type = "path", default = "", doc = "PEM file with that certificate's key" },
  { name = "docker.ssh", type = "list", default = { "ssh" }, doc = "the command for ssh:// endpoints, with options of its own" },
  { name = "docker.timeout", type = "number", default = 60, doc = "seconds that the engine may take to answer" },
  { name = "docker.watch_interval", type = "number", default = 30,
    doc = "seconds between two looks at which containers run, for what the engine's events did not tell" },
  { name = "docker.bind_ip", type = "string", default = "", doc = "address that ports are bound on; empty means all" },
  { name = "docker.cleanup.container", type = "boolean", default = true, doc = "remove the container of a stopped task" },
  { name = "docker.cleanup.image", type = "boolean", default = true, doc = "remove an image that dockrun pulled once nothing uses it" },
  { name = "docker.cleanup.image_delay", type = "duration", default = 180,
    doc = "how long an image that nothing uses stays; none at the end of `run` and `stop`" },
  { name = "gc.period", type = "duration", default = 300, doc = "how often `dockrun agent` looks for what no job owns; 0: never" },
  { name = "gc.creation_grace", type = "duration", default = 300, doc = "age below which nothing is taken for left over" },
  { name = "gc.job_threshold", type = "duration", default = 14400, doc = "how long a job that has ended is remembered" },
  { name = "docker.pull_timeout", type = "duration", default = 300, doc = "seconds that a pull may take in all" },
  { name = "docker.pull_activity_timeout", type = "duration", default = 120, doc = "seconds that a pull may go without progress" },
  { name = "docker.auth.config", type = "path", default = "", doc = "a config.json of Docker's with credentials for registries" },
  { name = "docker.auth.helper", type = "string", default = "", doc = "NAME of a docker-credential-NAME that knows credentials" },
  { name = "docker.allow_privileged", type = "boolean", default = false, doc = "tasks may be privileged" },
  { name = "docker.allow_caps", type = "list", default = capabilities.default, doc = "capabilities that tasks may have, or all" },
  { name = "docker.allow_runtimes", type = "list", default = { "runc", "nvidia" }, doc = "runtimes of the engine that tasks may name" },
  { name = "docker.allowed_modes.ipc", type = "list", default = { "none", "private", "shareable" },
    doc = "of ipc_mode: none, private, shareable, host, container" },
  { name = "docker.allowed_modes.pid", type = "list", default = {}, doc = "of pid_mode: host, container" },
  { name = "docker.allowed_modes.userns", type = "list", default = {}, doc = "of userns_mode: host" },
  { name = "docker.allowed_modes.uts", type = "list", default = {}, doc = "of uts_mode: host" },
  { name = "docker.volumes.enabled", type = "boolean", default = false,
    doc = "tasks may bind paths outside of their own directories, and use volumes" },
  { name = "docker.volumes.selinuxlabel", type = "string", default = "", doc = "z or Z: SELinux label for what is bound" },
  { name = "docker.pids_limit", type = "number", default = 0, doc = "the most processes of a task; 0 for no limit" },
  { name = "docker.oom_score_adj", type = "number", default = 0, doc = "the least that a task can ask for, and what it has if not" },
  { name = "ports.from", type = "number", default = 20000, doc = "first host port for dynamic_ports" },
  { name = "ports.to", type = "number", default = 60000, doc = "last host port for dynamic_ports" },
  { name = "hook_timeout", type = "duration", default = 30, doc = "seconds that a hook may take" },
  { name = "hook_instructions", type = "number", default = 50000000, doc = "instructions of Lua that a hook may run" },
  { name = "hook_seconds", type = "number", default = 2, doc = "seconds of the processor that a hook may use" },
  { name = "hook_memory", type = "number", default = 128, doc = "MB of memory that a hook may use" },
  { name = "hooks", type = "path", default = "", doc = "Lua file with the operator's hooks" },
  { name = "state_dir", type = "path", doc = "directory for state and for the allocations' directories",
    default = function()
      if uv.getuid() == 0 then return "/var/lib/dockrun" end
      local base = os.getenv "XDG_STATE_HOME"
      return (base and base ~= "" and base or (os.getenv "HOME" or "") .. "/.local/state") .. "/dockrun"
    end },
  { name = "dev", type = "boolean", default = false, doc = "read DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH" },
  { name = "context", type = "string", default = "", doc = "docker context whose endpoint is used" },
}

local by_name = {}
for _, row in ipairs(M.rows) do by_name[row.name] = row end

local readers = {
  string = function(text) return text end,
  path = function(text) return text end,
  number = function(text)
    local number = tonumber(text)
    return number and number >= 0 and number or nil
  end,
  duration = function(text) return duration.parse(text) end,
  list = function(value)
    local list = {}
    if type(value) == "table" then
      for i, one in ipairs(value) do list[i] = tostring(one) end
    else
      for one in value:gmatch "[^,%s]+" do list[#list + 1] = one end
    end
    return list
  end,
  boolean = function(text) return ({ ["true"] = true, ["1"] = true, ["false"] = false, ["0"] = false })[text] end,
}

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

--- Sets one option from its text or value.
---@param options table<string, any>
---@param name string
---@param value any
---@return true? ok
---@return table? err  kind "invalid"
function M.set(options, name, value)
  local row = by_name[name]
  if not row then return nil, runtime.error("invalid", ("no option '%s'; `dockrun help options` lists them"):format(name)) end
  local read
  if type(value) ~= "table" then value = tostring(value) end
  if type(value) == "string" or row.type == "list" then read = readers[row.type](value) end
  if read == nil then
    return nil, runtime.error("invalid", ("option '%s' is a %s, not '%s'"):format(name, row.type, tostring(value)))
  end
  options[name] = read
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

--- Sets options from a file: Lua that returns a table, or JSON; nested tables make dotted names.
---@param options table<string, any>
---@param path string
---@return true? ok
---@return table? err  kind "invalid", names the file
function M.read_file(options, path)
  local file, why = io.open(path, "r")
  if not file then return nil, runtime.error("invalid", ("cannot read the config: %s"):format(why)) end
  local text = file:read "a"
  file:close()
  local values, err
  if path:match "%.json$" then
    values, err = require("dockrun.core.json").decode(text)
  else
    local chunk
    chunk, err = load(text, "@" .. path, "t", {})
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
