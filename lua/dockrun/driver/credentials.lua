--- Credentials for a registry: the task's own `auth`, the agent's `docker.auth.config` and `docker.auth.helper`, or the user's
--- Docker configuration. They go to the engine with the pull, and nowhere else.
---
--- Formats: https://docs.docker.com/reference/cli/docker/login/ (config.json), and the protocol of
--- github.com/docker/docker-credential-helpers.
local encoding = require "dockrun.core.encoding"
local endpoint = require "dockrun.driver.endpoint"
local fs = require "dockrun.util.fs"
local json = require "dockrun.core.json"
local process = require "dockrun.driver.process"
local runtime = require "dockrun.core.runtime"

local M = {}

local HUB = "https://index.docker.io/v1/"
local PATIENCE = 30  -- seconds for a helper's answer

---@class Credentials       the engine's AuthConfig
---@field username? string
---@field password? string
---@field email? string
---@field identitytoken? string
---@field serveraddress string

--- The registry of a reference, as config.json names it.
---@param name string  Reference.name
---@return string
function M.registry(name)
  local first = name:match "^([^/]+)/"
  if not first or not (first:find "[.:]" or first == "localhost") or first == "docker.io" then return HUB end
  return first
end

-- "https://registry.example:5000/v1/" and "registry.example:5000" are the same.
local function host_of(address) return (address:gsub("^https?://", ""):gsub("/.*$", "")) end

local function fail(what, why) return nil, runtime.error("auth", ("credentials: %s: %s"):format(what, why)) end

-- Asks a helper. nil without an error if it has no credentials.
local function ask_helper(name, registry)
  local program = "docker-credential-" .. name
  local result, err = process.run({ program, "get" }, registry, PATIENCE)
  if not result then return fail(program, err.message) end
  if result.output:find "credentials not found" then return nil end
  local code = result.code or 0  -- if unknown, the output decides
  if code ~= 0 then return fail(program, ("it ended with %d for %s"):format(code, registry)) end
  local answer = json.decode(result.output)
  if type(answer) ~= "table" or type(answer.Secret) ~= "string" then return fail(program, "it gave no secret for " .. registry) end
  if answer.Username == "<token>" then return { identitytoken = answer.Secret, serveraddress = registry } end
  return { username = answer.Username, password = answer.Secret, serveraddress = registry }
end

local function from_entry(entry, registry)
  local user, password = entry.username, entry.password
  if entry.auth and entry.auth ~= "" then user, password = (encoding.unbase64((entry.auth:gsub("%s", ""))) or ""):match "^([^:]*):(.*)$" end
  if entry.identitytoken then return { identitytoken = entry.identitytoken, serveraddress = registry } end
  if user and user ~= "" then return { username = user, password = password, email = entry.email, serveraddress = registry } end
end

-- The credentials of a config.json: by the registry's own helper, an entry, or the helper for all.
local function from_file(path, registry, required)
  local text, why = fs.read(path)
  if not text then
    if required then return fail("docker.auth.config", why) end
    return nil
  end
  local config, err = json.decode((text:gsub("^\xEF\xBB\xBF", "")))
  if type(config) ~= "table" then return fail(path, "not JSON" .. (err and ": " .. tostring(err) or "")) end
  local host = host_of(registry)
  local helper = config.credHelpers and (config.credHelpers[registry] or config.credHelpers[host])
  if helper then return ask_helper(helper, registry) end
  for address, entry in pairs(config.auths or {}) do
    local found = (address == registry or host_of(address) == host) and from_entry(entry, registry)
    if found then return found end
  end
  if config.credsStore and config.credsStore ~= "" then return ask_helper(config.credsStore, registry) end
end

--- The credentials for a pull.
---@param name string                  Reference.name
---@param auth? table                  the task's `config.auth`
---@param options table<string, any>   see options.lua
---@return Credentials? credentials    nil without an error: the pull is anonymous
---@return table? err                  kind "auth"; never holds a secret
function M.find(name, auth, options)
  local registry = M.registry(name)
  if auth and auth.username then
    return { username = auth.username, password = auth.password, email = auth.email, serveraddress = auth.server_address or registry }
  end
  local function first(found, err) return found or err, found, err end
  local ended, found, err
  if options["docker.auth.config"] ~= "" then
    ended, found, err = first(from_file(options["docker.auth.config"], registry, true))
    if ended then return found, err end
  end
  if options["docker.auth.helper"] ~= "" then
    ended, found, err = first(ask_helper(options["docker.auth.helper"], registry))
    if ended then return found, err end
  end
  return from_file(endpoint.docker_config() .. "/config.json", registry, false)
end

return M
