-- Other programs that do the same work: their arguments, and functions that run them.
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

local M = {}

--- Runs a program to its end; its exit code must be 0.
---@param program string
---@param args string[]
---@return ProcessResult
function M.must(program, args)
  local result = process.run(args, { program = program, timeout = 300 })
  if result.code ~= 0 then error(("%s: %s"):format(program, result.stderr)) end
  return result
end

---@return ProcessResult
function M.dockrun(args) return M.must(process.program, args) end

---@param endpoint string
---@param args string[]
---@return ProcessResult
function M.docker(endpoint, args) return M.must("docker", { "-H", endpoint, table.unpack(args) }) end

--- One curl for a list of calls, each { method, path, body? }, on one connection.
---@param endpoint string
---@param calls table[]
function M.curl(endpoint, calls)
  local args = {}
  for i, call in ipairs(calls) do
    if i > 1 then args[#args + 1] = "--next" end
    local words = {
      "-sS", "--fail", "-o", "/dev/null", "--unix-socket", endpoint:gsub("^unix://", ""), "-X", call[1],
      "http://docker/v1.41" .. call[2],
    }
    if call[3] then table.move({ "-H", "Content-Type: application/json", "-d", call[3] }, 1, 4, #words + 1, words) end
    table.move(words, 1, #words, #args + 1, args)
  end
  return M.must("curl", args)
end

local has = {}

--- Debian's python3-docker: runs code that has `client`, and returns the number that the code prints, if any.
---@param endpoint string
---@param code string
---@return number?
function M.python(endpoint, code)
  local head = ("import docker, time\nclient = docker.DockerClient(base_url=%q, version='1.41')\n"):format(endpoint)
  return tonumber(M.must("/usr/bin/python3", { "-c", head .. code }).stdout)
end

--- True if a peer is installed.
---@param name "docker"|"docker-compose"|"python3-docker"|"curl"
---@return boolean
function M.has(name)
  if has[name] == nil then
    if name == "python3-docker" then
      has[name] = process.run({ "-c", "import docker" }, { program = "/usr/bin/python3" }).code == 0
    else
      has[name] = uv.fs_stat("/usr/bin/" .. name) ~= nil
    end
  end
  return has[name]
end

--- Writes a compose file of services; returns the arguments of docker-compose that name it, a project and the engine.
---@param endpoint string
---@param services table<string, table>
---@return fun(...: string): string[] words  the arguments, with more of them
---@return table file                         to be closed
function M.compose_file(endpoint, services)
  local path, file = jobs.write(dockrun.json.encode { version = "2.4", services = services }, ".json")
  local project = jobs.unique "bench"
  return function(...) return { "-H", endpoint, "-f", path, "-p", project, ... } end, file
end

return M
