-- Compares contestants: a floor (the minimum that the machine needs for the work), dockrun, and peers, in turn, so that
-- a drift of the machine's speed affects all of them equally.
local dockrun = require "dockrun"
local peers = require "spec.bench.peers"

local M = {}

---@class Contestant
---@field [1] "floor"|"dockrun"|"peer"
---@field [2] string                      its name
---@field [3] fun(): number?, number?     does the work; returns the number of operations (default 1) and their time in seconds
---  (default: the duration of the call). If the unit is "MB": returns bytes
---@field needs? string                   a program that may be missing; then the contestant is skipped

---@class Figure
---@field what string
---@field role string
---@field who string
---@field unit string
---@field median number
---@field best number
---@field rounds integer

local scales = { ms = 1e3, ["µs"] = 1e6, MB = 1e-6 }

local function measure(unit, run)
  local started = dockrun.now()
  local operations, seconds = run()
  if unit == "MB" then return operations end
  return (seconds or dockrun.now() - started) / (operations or 1)
end

--- Measures each contestant `rounds` times, in turn, after one round that is not measured.
---@param what string
---@param unit "ms"|"µs"|"MB"   of one operation
---@param rounds integer
---@param contestants Contestant[]
---@return Figure[]
function M.compare(what, unit, rounds, contestants)
  local values, present = {}, {}
  for _, one in ipairs(contestants) do
    if not one.needs or peers.has(one.needs) then present[#present + 1] = one end
  end
  for round = unit == "MB" and 1 or 0, rounds do
    for i, one in ipairs(present) do
      local value = measure(unit, one[3])
      values[i] = values[i] or {}
      if round > 0 then table.insert(values[i], value) end
    end
  end
  local figures = {}
  for i, one in ipairs(present) do
    table.sort(values[i])
    figures[i] = {
      what = what, role = one[1], who = one[2], unit = unit, rounds = rounds,
      median = values[i][(rounds + 1) // 2] * scales[unit], best = values[i][1] * scales[unit],
    }
  end
  return figures
end

return M
