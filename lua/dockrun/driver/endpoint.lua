--- The Docker engine's address, from the options, a Docker context or the environment, and the connection to it.
local response_schema = require "dockrun.driver.response_schema"
local docker = require "dockrun.core.docker"
local fs = require "dockrun.util.fs"
local json = require "dockrun.core.json"
local runtime = require "dockrun.core.runtime"
local ssh = require "dockrun.driver.ssh"
local uv = require "luv"

local M = {}

-- The variables that the docker command reads, and that dockrun reads only with --dev.
M.environment = { "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH" }

---@class Endpoint
---@field endpoint string
---@field tls? { ca?: string, cert?: string, key?: string, insecure?: boolean }

-- The files with docker's names; `given`: only those that exist.
local function certificates(directory, given)
  local tls = {}
  for _, name in ipairs { "ca", "cert", "key" } do
    local path = ("%s/%s.pem"):format(directory, name)
    if not given or uv.fs_stat(path) then tls[name] = path end
  end
  return tls
end

--- The directory of the user's Docker configuration: DOCKER_CONFIG, or ~/.docker if that is unset or empty.
---@param getenv? fun(name: string): string?
---@return string path
function M.docker_config(getenv)
  getenv = getenv or os.getenv
  local given = getenv "DOCKER_CONFIG" or ""
  return given ~= "" and given or (getenv "HOME" or "") .. "/.docker"
end

local function from_environment(getenv)
  local host = getenv "DOCKER_HOST"
  if not host or host == "" then return nil end
  local verify, path = (getenv "DOCKER_TLS_VERIFY" or "") ~= "", getenv "DOCKER_CERT_PATH"
  if not path or path == "" then
    if not verify then return { endpoint = host } end
    path = M.docker_config(getenv)
  end
  local tls = certificates(path)
  tls.insecure = not verify
  return { endpoint = host, tls = tls }
end

local function from_options(options)
  local tls
  for _, name in ipairs { "ca", "cert", "key" } do
    local path = options["docker.tls." .. name]
    if path ~= "" then
      tls = tls or {}
      tls[name] = path
    end
  end
  return { endpoint = options["docker.endpoint"], tls = tls }
end

-- Docker keeps contexts as ~/.docker/contexts/meta/<sha256 of the name>/meta.json; the names are read, not hashed.
local function from_context(name, getenv)
  local root = M.docker_config(getenv) .. "/contexts"
  for _, entry in ipairs(fs.list(root .. "/meta")) do
    local text = fs.read(("%s/meta/%s/meta.json"):format(root, entry))
    local meta = text and json.decode(text)
    if type(meta) == "table" and meta.Name == name then
      local found = (meta.Endpoints or {}).docker or {}
      if not found.Host then break end
      local directory = ("%s/tls/%s/docker"):format(root, entry)
      local tls = uv.fs_stat(directory) and certificates(directory, true) or nil
      if tls then tls.insecure = found.SkipTLSVerify end
      return { endpoint = found.Host, tls = tls }
    end
  end
  return nil, runtime.error("invalid", ("no docker context '%s' under %s"):format(name, root))
end

--- The endpoint that the options ask for: a context (as for docker, `default` is no context), the environment (with --dev), or
--- `docker.endpoint`.
---@param options table<string, any>
---@param getenv? fun(name: string): string?
---@return Endpoint? endpoint
---@return table? err  kind "invalid"
function M.resolve(options, getenv)
  getenv = getenv or os.getenv
  local context = options.context
  if context ~= "" and context ~= "default" then return from_context(context, getenv) end
  return options.dev and from_environment(getenv) or from_options(options)
end

--- The engine at opts.endpoint or, without one, at the endpoint of the options. Nothing is sent yet, but the tunnel of ssh://
--- is opened.
---@param options table<string, any>
---@param opts? { endpoint?: string, timeout?: number, tls?: table, trace?: fun(call: table) }
---@return table? engine
---@return table? err  kind "invalid"; of ssh:// also "unreachable"
function M.connect(options, opts)
  opts = opts or {}
  local found, err, socket = opts, nil, nil
  if not opts.endpoint then found, err = M.resolve(options) end
  if not found then return nil, err end
  if found.endpoint:find "^ssh://" then
    socket, err = ssh.socket(found.endpoint, options["docker.ssh"])
    if not socket then return nil, err end
  end
  return docker.connect {
    endpoint = found.endpoint, socket = socket, tls = opts.tls or found.tls,
    timeout = opts.timeout or options["docker.timeout"], trace = opts.trace, check = response_schema.check,
  }
end

--- A warning if DOCKER_HOST or a similar variable is set and not read; nil otherwise.
---@param options table<string, any>
---@param getenv? fun(name: string): string?
---@return string? notice
function M.notice(options, getenv)
  if options.dev then return nil end
  local set = {}
  for _, name in ipairs(M.environment) do
    if ((getenv or os.getenv)(name) or "") ~= "" then set[#set + 1] = name end
  end
  if #set == 0 then return nil end
  return ("%s set but ignored without --dev; the engine is %s"):format(
    table.concat(set, ", "), options.context ~= "" and "context " .. options.context or options["docker.endpoint"])
end

return M
