-- Loaded by busted before any spec. Each spec file gets modules of its own, except those loaded here:
-- there is one runtime, and one engine and one registry serve the whole run.
local busted = require "busted"
local dockrun = require "dockrun"
local engine = require "spec.engine"
local jobs = require "spec.jobs"
local rmtree = require("pl.dir").rmtree
local uv = require "luv"

-- No spec reads the host's config files.
for name, value in pairs(require("dockrun.options").new()) do dockrun.options[name] = value end

-- The state directories of this process, and of processes that were killed.
local function remove_states()
  local entries = uv.fs_scandir "build"
  for name in function() return entries and uv.fs_scandir_next(entries) end do
    local pid = tonumber(name:match("^" .. jobs.state_prefix:gsub("%-", "%%-") .. "(%d+)$"))
    if pid and (pid == uv.os_getpid() or not uv.fs_stat("/proc/" .. pid)) then rmtree("build/" .. name) end
  end
end

busted.subscribe({ "suite", "end" }, function()
  engine.stop_all()
  remove_states()
  return nil, true -- the next subscriber's turn
end)
