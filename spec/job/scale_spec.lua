-- Loading a job takes work in proportion to its size. The spec counts instructions of Lua, which are the same on every
-- machine; spec/bench measures the time.
local dockrun = require "dockrun"
local load = require "dockrun.job.load"

local writers = {}

function writers.json(count, image)
  local tasks = {}
  for i = 1, count do
    tasks["t" .. i] = { config = { image = image, command = "sh", args = { "-c", "x" } }, env = { A = 1 },
      resources = { network = { dynamic_ports = { "p" .. i }, reserved_ports = { i } } }, meta = { n = i } }
  end
  return dockrun.json.encode { job = { big = { datacenters = { "a" }, group = { all = { task = tasks } } } } }
end

function writers.nomad(count, image)
  local parts = { 'job "big" {\ndatacenters = ["a"]\ngroup "all" {' }
  for i = 1, count do
    parts[#parts + 1] = ([[
task "t%d" {
  config { image = "%s", command = "sh", args = ["-c", "x"] }
  env { A = 1 }
  resources { network { dynamic_ports = ["p%d"], reserved_ports = [%d] } }
  meta { n = %d }
}]]):format(i, image, i, i, i)
  end
  parts[#parts + 1] = "}\n}"
  return table.concat(parts, "\n")
end

function writers.lua(count, image)
  return ([[
local tasks = {}
for i = 1, %d do
  tasks[i] = task("t" .. i) { config = { image = %q, command = "sh", args = { "-c", "x" } }, env = { A = 1 },
    resources = { network = { dynamic_ports = { "p" .. i }, reserved_ports = { i } } }, meta = { n = i } }
end
return job "big" { datacenters = { "a" }, group "all" (tasks) }]]):format(count, image)
end

describe("a job of many tasks", function()
  -- Without a limit of time, whose own count would take the place of ours.
  local options = { ["limits.problems"] = 10000, ["limits.allocs_per_job"] = 10000, ["limits.job_seconds"] = math.huge,
    ["limits.job_bytes"] = math.huge }

  -- Thousands of instructions of Lua that reading takes, and what comes of it.
  local function work(format, count, image)
    local text, steps = writers[format](count, image), 0
    debug.sethook(function() steps = steps + 1 end, "", 1000)
    local job, err = load.string(text, format, "big", { options = options })
    debug.sethook()
    return steps, job, err
  end

  for _, format in ipairs { "json", "nomad", "lua" } do
    it("takes work by their number: " .. format, function()
      local less, small = work(format, 300, "redis:7")
      local more, large = work(format, 2400, "redis:7")
      assert.same({ 300, 2400 }, { #assert(small).groups[1].tasks, #assert(large).groups[1].tasks })
      assert.is_true(more < 8 * 1.15 * less, ("%d and %d thousand instructions"):format(less, more))
    end)

    it("takes work by their number if each of them is wrong: " .. format, function()
      local less, _, few = work(format, 150, "no image")
      local more, _, many = work(format, 1200, "no image")
      assert.same({ 150, 1200 }, { #few.list, #many.list })
      assert.is_true(more < 8 * 1.15 * less, ("%d and %d thousand instructions"):format(less, more))
    end)
  end
end)
