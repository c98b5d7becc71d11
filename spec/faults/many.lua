-- Many faults, each of a seed of its own, several in parallel; and a table of their outcomes.
local dockrun = require "dockrun"
local randoms = require "spec.fuzz.random"

local M = {}

---@class FaultOutcome
---@field class string       the kind of fault
---@field verdict string     one of `verdicts`
---@field what string        the fault, so that it can be repeated
---@field problems string[]  violated checks

M.verdicts = { "unharmed", "retried", "clear error", "FAILED", "not met" }

local SHORT, SANITIZED_SHORT = 40, 12 -- the sanitizers are slow

--- True if the dockrun under test is the build with sanitizers.
---@return boolean
function M.is_sanitized()
  local maps <close> = io.open "/proc/self/maps"
  return maps ~= nil and maps:read("a"):find("libasan", 1, true) ~= nil
end

--- The number of faults and the first seed (FAULTS, FAULTS_SEED), and how many run in parallel.
---@return { count: integer, seed: integer, width: integer }
function M.options()
  return {
    count = math.tointeger(tonumber(os.getenv "FAULTS")) or M.is_sanitized() and SANITIZED_SHORT or SHORT,
    seed = math.tointeger(tonumber(os.getenv "FAULTS_SEED")) or 1, width = 3,
  }
end

--- Tries faults until `count` of them have fired.
---@param opts { count: integer, seed: integer, width: integer }
---@param try fun(random: Random): FaultOutcome
---@return table<string, table<string, integer>> counts  by class, then by verdict
---@return string[] failures
function M.run(opts, try)
  local counts, failures, done, next_seed = {}, {}, 0, opts.seed
  local function work()
    while done < opts.count do
      local seed = next_seed
      next_seed = next_seed + 1
      local outcome = try(randoms.new(seed))
      if #outcome.problems > 0 then outcome.verdict = "FAILED" end
      local row = counts[outcome.class] or {}
      counts[outcome.class] = row
      row[outcome.verdict] = (row[outcome.verdict] or 0) + 1
      if #outcome.problems > 0 then
        failures[#failures + 1] = ("seed %d, %s:\n  %s"):format(seed, outcome.what, table.concat(outcome.problems, "\n  "))
      end
      if outcome.verdict ~= "not met" then done = done + 1 end
    end
  end
  local workers = {}
  for i = 1, opts.width do workers[i] = work end
  dockrun.all(workers)
  return counts, failures
end

--- The counts as a table for people.
---@param counts table<string, table<string, integer>>
---@return string
function M.table(counts)
  local classes, lines, sums = {}, { ("%-20s"):format "fault" .. ("%12s"):rep(#M.verdicts):format(table.unpack(M.verdicts)) }, {}
  for class in pairs(counts) do classes[#classes + 1] = class end
  table.sort(classes)
  local function add(name, row)
    local cells = {}
    for i, verdict in ipairs(M.verdicts) do cells[i] = row[verdict] or 0 end
    lines[#lines + 1] = ("%-20s"):format(name) .. ("%12d"):rep(#cells):format(table.unpack(cells))
  end
  for _, class in ipairs(classes) do
    add(class, counts[class])
    for verdict, count in pairs(counts[class]) do sums[verdict] = (sums[verdict] or 0) + count end
  end
  add("all", sums)
  return table.concat(lines, "\n")
end

return M
