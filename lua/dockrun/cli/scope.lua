-- Ends with one run of the command what that run sets: a host program may run several commands, and has options itself.
local dockrun = require "dockrun"
local output = require "dockrun.output"
local tables = require "dockrun.util.tables"

--- Begins a run, on a copy of the options. Closing it restores the options of the host.
---@return table scope
return function()
  local options, arg, argparse = dockrun.options, _G.arg, package.loaded.argparse
  dockrun.options, output.verbose, output.lost = tables.copy_data(options), false, false
  return setmetatable({}, { __close = function()
    dockrun.options, _G.arg, package.loaded.argparse = options, arg, argparse
  end })
end
