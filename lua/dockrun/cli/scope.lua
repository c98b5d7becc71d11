-- What one run of the command sets ends with it: a host program may run several, and has options of its own.
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"
local tree = require "dockrun.job.tree"

--- Begins a run, on a copy of the options. To be closed when the command has ended.
---@return table scope
return function()
  local options, arg, argparse = dockrun.options, _G.arg, package.loaded.argparse
  dockrun.options, output.verbose, output.lost = tree.copy(options), false, false
  return setmetatable({}, { __close = function()
    dockrun.options, _G.arg, package.loaded.argparse = options, arg, argparse
  end })
end
