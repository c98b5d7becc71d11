-- The benchmarks run and print their measurements.
local dockrun = require "dockrun"
local process = require "spec.process"

describe("spec/bench/run.lua", function()
  -- In a network of its own: it uses nearly all ports of a range, which another copy of it might need.
  local function bench(...)
    local command = { "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", process.program, "spec/bench/run.lua", ... }
    return process.run(command, { program = "unshare", timeout = 120 })
  end

  it("prints its figures as JSON", function()
    local result = bench("--json", "ports")
    assert.equal(0, result.code, result.stderr)
    local told = assert(dockrun.json.decode(result.stdout))
    assert.matches("^%d+ cores of .*; Docker %d+%.", told.machine)
    local floor = told.figures[1]
    assert.same({ "One host port, tcp and udp", "floor", "µs", 9 }, { floor.what, floor.role, floor.unit, floor.rounds })
    for _, figure in ipairs(told.figures) do assert.is_true(figure.best > 0 and figure.best <= figure.median, figure.who) end
  end)

  it("prints them as a table of 80 columns", function()
    local result = bench("ports", "call")
    assert.equal(0, result.code, result.stderr)
    assert.matches("\nOne host port, tcp and udp\n +MEDIAN +BEST +/ FLOOR\nfloor +the kernel's", result.stdout)
    assert.matches("\ndockrun +engine:container_inspect%(id%) +[%d.]+ µs +[%d.]+ +[%d.]+\n", result.stdout)
    for line in result.stdout:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
  end)

  it("refuses an unknown benchmark", function() assert.equal(2, bench("everything").code) end)
end)
