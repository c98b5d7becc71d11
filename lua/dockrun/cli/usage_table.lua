--- What containers use, as a table for people that fits 80 columns: `dockrun stats` and scripts/top.lua.
local output = require "dockrun.cli.output"

local M = {}

local RESOURCES = { "cpu", "memory", "io" }

local function shown(format, value) return value and format:format(value) or "-" end

-- { cpu = { some = { avg10 = 12.5 } } } -> "12/-/-"
local function pressure(resources)
  if not resources then return "-" end
  local parts = {}
  for i, name in ipairs(RESOURCES) do
    local some = resources[name] and resources[name].some
    parts[i] = shown("%.0f", some and some.avg10)
  end
  return table.concat(parts, "/")
end

--- Prints a row for each container. PRESSURE is the percentage of the last 10 seconds in which a process waited for CPU,
--- memory and I/O. "-" is what the kernel does not count for the container.
---@param title string    of the first column
---@param names string[]  what the first column says, by row
---@param rows Usage[]
function M.print(title, names, rows)
  local cells = {}
  for i, row in ipairs(rows) do
    cells[i] = {
      names[i], shown("%.1f", row.cpu_percent), output.size(row.memory), output.size(row.memory_limit), shown("%d", row.pids),
      shown("%d", row.oom_kills), shown("%.1fs", row.throttled_seconds), pressure(row.pressure),
    }
  end
  output.columns({ title, "CPU%", "MEMORY", "LIMIT", "PIDS", "OOM", "THROTTLED", "PRESSURE" }, cells)
end

return M
