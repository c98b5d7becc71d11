-- The cost of dockrun, compared with a floor and peers, in one run. scripts/install bench installs the peers.
--
--   build/release/dockrun spec/bench/run.lua [--json|--markdown] [start|call|task|memory|ports|validate …]
package.path = "./?.lua;" .. package.path
local dockrun = require "dockrun"
local engines = require "spec.engine"
local fingerprint = require "dockrun.driver.fingerprint"
local jobs = require "spec.jobs"
local output = require("dockrun").output
local uv = require "luv"

local parser = require "argparse"("run.lua", "What dockrun costs, beside a floor and peers.")
parser:argument("names", "Only these."):args "*":choices { "start", "call", "task", "memory", "ports", "validate" }
parser:mutex(parser:flag("--json", "The figures as JSON."), parser:flag("--markdown", "As the page docs/bench.md."))
function parser:error(message)
  io.stderr:write(self:get_usage(), "\n\nError: ", message, "\n")
  os.exit(2, true)
end
local args = parser:parse()
local form = args.json and "json" or args.markdown and "markdown" or "text"
local names = #args.names > 0 and args.names or { "start", "call", "task", "memory", "ports", "validate" }

local function machine(engine)
  local attributes = fingerprint.attributes(engine, require("dockrun.options").new())
  return ("%d cores of %s, %.0f GiB of memory; Linux %s; Docker %s, cgroup v%s; dockrun %s; load average %.1f"):format(
    attributes["cpu.numcores"], uv.cpu_info()[1].model, attributes["memory.totalbytes"] / 2 ^ 30, attributes["kernel.version"],
    attributes["driver.docker.version"], attributes["driver.docker.cgroup_version"], dockrun.version, (uv.loadavg()))
end

local function number(value) return (value >= 100 and "%.0f" or "%.3g"):format(value) end

-- The figures of one comparison as rows: role, who, median, best, how many times the floor.
local function rows_of(figures)
  local rows = {}
  for i, figure in ipairs(figures) do
    local floor = figures[1].role == "floor" and i > 1
    rows[i] = {
      figure.role, figure.who, ("%s %s"):format(number(figure.median), figure.unit), number(figure.best),
      floor and ("%.1f"):format(figure.median / figures[1].median) or "",
    }
  end
  return rows
end

local head = { "", "", "MEDIAN", "BEST", "/ FLOOR" }

local forms = {
  text = function(about, comparisons)
    output.result((about:gsub("; ", "\n")))
    for _, figures in ipairs(comparisons) do
      output.result("\n" .. output.paint(figures[1].what, "1"))
      output.columns(head, rows_of(figures))
    end
  end,
  json = function(about, comparisons)
    local figures = dockrun.json.array {}
    for _, some in ipairs(comparisons) do table.move(some, 1, #some, #figures + 1, figures) end
    output.json { machine = about, figures = figures }
  end,
  markdown = function(about, comparisons)
    output.result(([[
# What dockrun costs

Each table is measured in one run, the contestants in turn; the median of several rounds counts. The *floor* is the least
that the machine needs for it, a *peer* is another program that does the same. Lower is better. This page is made by
`scripts/install bench; build/release/dockrun spec/bench/run.lua --markdown >docs/bench.md`.

Measured on: %s. (A load average above the number of cores means that other work went on beside; then the rows of a table
compare, and its numbers are too high.)]]):format(about))
    for _, figures in ipairs(comparisons) do
      output.result(("\n## %s\n\n| | | median | best | times the floor |\n| --- | --- | ---: | ---: | ---: |"):format(figures[1].what))
      for _, row in ipairs(rows_of(figures)) do output.result("| " .. table.concat(row, " | ") .. " |") end
    end
  end,
}

local e <close> = engines.start()
local bench = { endpoint = e.endpoint, image = "busybox:1", engine = assert(dockrun.connect { endpoint = e.endpoint }),
  state_dir = jobs.state_dir }
engines.image(e, bench.image)
local about, comparisons = machine(bench.engine), {}
for _, name in ipairs(names) do
  local found = require("spec.bench." .. name)(bench)
  table.move(found, 1, #found, #comparisons + 1, comparisons)
end
forms[form](about, comparisons)
