-- Makes a state and containers again as an older version of dockrun left them: see record.lua.
--
--   local older <close> = replay.start(engine, endpoint, states.dir, "bb58faa")
--   older.jobs.SERVICE, older.files.SERVICE, older.containers
local dockrun = require "dockrun"
local jobs = require "spec.jobs"
local ports = require "dockrun.core.ports"
local sqlite = require "dockrun.core.sqlite"
local uv = require "luv"

local M = {}

--- The jobs of this directory, by the placeholders of their names.
M.jobs = { "service.lua", "batch.nomad" }

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function fill_in(text, values)
  return (text:gsub("@([%u%d_]+)@", function(name) return assert(values[name], name) end))
end

--- Replaces values in a text by @NAME@.
---@param text string
---@param values table<string, string>  value -> name
---@return string
function M.generalise(text, values)
  local list = {}
  for value in pairs(values) do list[#list + 1] = value end
  table.sort(list, function(a, b) return #a > #b or #a == #b and a < b end)
  for _, value in ipairs(list) do
    for _, written in ipairs { value, (value:gsub("/", "\\/")) } do  -- the second: within JSON
      text = text:gsub(written:gsub("%p", "%%%0"), ("@%s@"):format(values[value]))
    end
  end
  return text
end

--- Writes a job of this directory.
---@param file string
---@param dir string
---@param values table<string, string>  name -> value
---@return string path
function M.write(file, dir, values)
  local path = ("%s/%s"):format(dir, file)
  local written <close> = assert(io.open(path, "w"))
  written:write(fill_in(read("spec/upgrade/" .. file), values))
  return path
end

local function uuid()
  local bytes = ("%02x"):rep(16):format(uv.random(16):byte(1, 16))
  return (bytes:gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-"))
end

-- Values of this host and this run.
local function values_of(engine, endpoint, dir, text)
  local values = {
    STATE = dir, ENDPOINT = endpoint, IMAGE = assert(engine:image_inspect "busybox:1").Id, IP = "127.0.0.1",
    SERVICE = jobs.unique "service", BATCH = jobs.unique "batch",
    STATE_ID = (uuid():gsub("-", "")),
  }
  local free = ports.new { from = 20000, to = 60000 }
  for name in text:gmatch "@([%u%d_]+)@" do
    if name:find "^ALLOC" then values[name] = values[name] or uuid() end
    if name:find "^PORT" then values[name] = values[name] or tostring(assert(free:allocate("0.0.0.0", "replay"))) end
  end
  for name, value in pairs(values) do
    if name:find "^PORT" then free:release("0.0.0.0", tonumber(value)) end
  end
  return values
end

-- Decoded, JSON's [] and {} are the same.
local function without_empty_lists(body)
  for key, value in pairs(body.HostConfig) do
    if type(value) == "table" and not next(value) then body.HostConfig[key] = nil end
  end
  return body
end

local function make_directories(body)
  for _, mount in ipairs(body.HostConfig.Mounts) do
    local path = ""
    for part in (mount.Type == "bind" and mount.Source or ""):gmatch "/[^/]+" do
      path = path .. part
      uv.fs_mkdir(path, tonumber("777", 8))
    end
  end
  for _, bind in ipairs(body.HostConfig.Binds or {}) do uv.fs_mkdir(bind:match "^[^:]+", tonumber("777", 8)) end
end

---@class Older
---@field jobs table<string, string>   their names, by placeholder
---@field files table<string, string>  their files
---@field containers string[]          ids
local Older = {}
Older.__index = Older

--- Starts the containers, and writes the state.
---@param engine table
---@param endpoint string
---@param dir string      the state directory, which exists
---@param version string
---@return Older
function M.start(engine, endpoint, dir, version)
  local dump, made = read(("spec/upgrade/%s.sql"):format(version)), read(("spec/upgrade/%s.json"):format(version))
  local values = values_of(engine, endpoint, dir, dump .. made)
  for i, one in ipairs(dockrun.json.decode(made)) do values["CONTAINER" .. i] = one.id end  -- replaced below by its id
  local self = setmetatable({ engine = engine, containers = {}, jobs = {}, files = {} }, Older)
  for i, one in ipairs(dockrun.json.decode(fill_in(made, values))) do
    make_directories(one.body)
    local id = assert(engine:container_create { name = one.name, body = without_empty_lists(one.body) }).Id
    self.containers[i], values["CONTAINER" .. i] = id, id
    assert(engine:container_start(id))
  end
  local path = dir .. "/state.db"
  assert(uv.fs_close(assert(uv.fs_open(path, "wx", tonumber("600", 8)))))
  local db <close> = assert(sqlite.open(path))
  assert(db:exec(fill_in(dump, values)))
  for _, file in ipairs(M.jobs) do
    local name = file:match "^%l+":upper()
    self.jobs[name], self.files[name] = values[name], M.write(file, dir, values)
  end
  return self
end

--- Removes what is left of the containers.
function Older:close()
  for _, id in ipairs(self.containers) do self.engine:container_remove(id, { force = true, v = true }) end
end

Older.__close = Older.close

return M
