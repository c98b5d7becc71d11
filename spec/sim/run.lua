-- Runs simulated worlds, each by its seed, and prints those that broke an invariant:
--
--   build/release/dockrun spec/sim/run.lua [--seeds N] [--from S] [--seed S [--trace]]
--
-- Unless there is one seed only, it is also a failure if no world took some transition of the state machine.
local dockrun = require "dockrun"
local lifecycle = require "dockrun.task.lifecycle"
local story = require "spec.sim.story"
local uv = require "luv"
local worlds = require "spec.sim.world"

local DEFAULT = 2000

local parser = require "argparse"("spec/sim/run.lua", "Runs dockrun in simulated worlds.")
parser:option("--seeds", "The number of worlds."):convert(math.tointeger):default(tostring(DEFAULT))
parser:option("--from", "The first seed."):convert(math.tointeger):default "1"
parser:option("--seed", "Run only this world."):convert(math.tointeger)
parser:flag("--trace", "Print what happens.")
local options = parser:parse(arg)

-- A third of the worlds have no faults: they are held to more.
local function severity(seed) return seed % 3 == 0 and 0 or 0.15 end

local function run(seed, trace)
  local world = worlds.new(seed, { severity = severity(seed), trace = trace })
  story.tell(world, { kills = seed % 5 ~= 0, gentle = seed % 3 == 0 })
  return world
end

local first, last = options.seed or options.from, options.seed or options.from + options.seeds - 1
collectgarbage("setpause", 400)
local start, told = uv.hrtime(), 0
local arrows, failed, steps, processes = {}, {}, 0, 0

local function elapsed() return (uv.hrtime() - start) / 1e9 end

-- A signal counts between two worlds: within a world it would look like an error.
local signal
for _, name in ipairs { "sigint", "sigterm" } do
  local watcher = uv.new_signal()
  watcher:start(name, function() signal = name end)
  watcher:unref()
end

for seed = first, last do
  dockrun.sleep(0)
  if signal then
    print(("stopped by %s after %d worlds, %d failed"):format(signal, seed - first, #failed))
    worlds.finish()
    os.exit(130)
  end
  local ok, world = xpcall(run, debug.traceback, seed, options.trace and function(text) print(text) end)
  local violations = ok and world.violations or { world }
  if #violations > 0 then
    failed[#failed + 1] = seed
    print(("seed %d:\n  %s\n  repeat: build/release/dockrun spec/sim/run.lua --seed %d --trace"):format(
      seed, table.concat(violations, "\n  "), seed))
  end
  for arrow, count in pairs(ok and world.arrows or {}) do arrows[arrow] = (arrows[arrow] or 0) + count end
  steps, processes = steps + (ok and world.sched.steps or 0), processes + (ok and #world.processes or 0)
  if elapsed() - told >= 30 then
    told = elapsed()
    print(("%4.0f s: %d worlds, %d failed"):format(told, seed - first + 1, #failed))
  end
end

local count = last - first + 1
print(("%d worlds in %.1f s (%.1f ms each; %d processes, %d steps), %d failed"):format(
  count, elapsed(), elapsed() * 1000 / count, processes, steps, #failed))
local missing, rarest = {}, nil
for _, row in ipairs(lifecycle.transitions) do
  local arrow = row[1] .. ">" .. row[2]
  if not arrows[arrow] then missing[#missing + 1] = arrow end
  if not rarest or (arrows[arrow] or 0) < (arrows[rarest] or 0) then rarest = arrow end
end
print(("%d of %d transitions gone (%.0f %%), the rarest, %s, %d times%s"):format(#lifecycle.transitions - #missing,
  #lifecycle.transitions, 100 - 100 * #missing / #lifecycle.transitions, rarest, arrows[rarest] or 0,
  #missing > 0 and "; not gone: " .. table.concat(missing, " ") or ""))
worlds.finish()
os.exit(#failed == 0 and (options.seed or #missing == 0) and 0 or 1)
