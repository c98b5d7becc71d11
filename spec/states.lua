-- State directories for specs, removed after the stores in them are closed.
--
--   local states = require "spec.states"
--   before_each(states.begin)
--   after_each(states.finish)
local rmtree = require("pl.dir").rmtree
local sqlite = require "dockrun.core.sqlite"
local store = require "dockrun.store"
local uv = require "luv"

local M = {}

local opened

--- A new directory: states.dir, with the database at states.path.
function M.begin()
  M.dir, opened = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-state-XXXXXX")), {}
  M.path = M.dir .. "/state.db"
end

function M.finish()
  for _, each in ipairs(opened) do each:close() end
  rmtree(M.dir)
end

--- store.open(states.dir, opts); finish() closes the store.
---@param opts? table
---@return Store? state
---@return table? err
function M.open(opts)
  local state, err = store.open(M.dir, opts)
  if state then opened[#opened + 1] = state end
  return state, err
end

--- Runs SQL on the database without the store.
---@param sql string
---@return any value  of the last statement, if it is the only one
function M.sql(sql)
  local db <close> = assert(sqlite.open(M.path))
  if sql:find ";" then return assert(db:exec(sql)) end
  local value, err = db:value(sql)
  assert(not err, err)
  return value
end

--- A job of one group with one allocation, in the state.
---@param state Store
---@param job? string    "cache" if left out
---@param alloc? string  "a1"
---@return string alloc
function M.put_alloc(state, job, alloc)
  job, alloc = job or "cache", alloc or "a1"
  assert(state:put_job { name = job, definition = { name = job }, status = "running" })
  assert(state:put_alloc { id = alloc, job = job, group = "redis", index = 0 })
  return alloc
end

--- The content of a file. No store may be open on it in this process: reading and closing the file would drop its locks.
---@param path string
---@return string
function M.bytes(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

return M
