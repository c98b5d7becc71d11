#!/usr/bin/env dockrun
-- Restarts the containers with a label, one after the other. It continues when the container runs, is healthy (if its
-- image has a check) and has stayed so; it stops at the first container that does not come back.
--
--   dockrun scripts/rolling-restart.lua [--settle TIME] [--timeout TIME] LABEL[=VALUE]
--
-- Exit: 0 all are up, 1 one is not (or none has the label), 2 wrong arguments.
local dockrun = require "dockrun"

local parser = dockrun.arguments.parser("rolling-restart.lua", "Restarts containers by label, one at a time.")
parser:argument("label", "LABEL or LABEL=VALUE.")
parser:option("--settle", "How long a container must stay up before the next.", "2"):convert(dockrun.duration.parse)
parser:option("--timeout", "How long a container may take to come back.", "60"):convert(dockrun.duration.parse)
local args = parser:parse()

local function name_of(container) return dockrun.safe((container.Names[1]:gsub("^/", ""))) end

local engine = assert(dockrun.connect())
local containers = assert(engine:container_list { filters = { label = { args.label } } })
table.sort(containers, function(a, b) return name_of(a) < name_of(b) end)
if #containers == 0 then
  io.stderr:write("no running container has the label ", dockrun.safe(args.label), "\n")
  os.exit(1, true)
end

-- Whether the container is up. If not: why, and whether it may still come up.
local function state_of(id)
  local container, err = engine:container_inspect(id)
  if not container then return false, tostring(err), false end
  local state = container.State
  -- A container with a restart policy of the engine counts as running even while it waits for its next start.
  if container.RestartCount > 0 then return false, "it ended, and the engine restarted it", false end
  if not state.Running then return false, ("it stopped with exit code %d"):format(state.ExitCode), false end
  local health = state.Health and state.Health.Status or "healthy"
  return health == "healthy", "it is " .. health, true
end

-- True when the container is back and has stayed up, or nil and why not.
local function restart(id)
  local ok, err = engine:container_inspect(id)
  local grace = ok and math.max(ok.Config.StopTimeout or 10, 0)
  if ok then ok, err = engine:container_restart(id, { timeout = grace + args.timeout }) end
  if not ok then return nil, tostring(err) end
  local deadline, up_since = dockrun.now() + args.timeout, nil
  repeat
    local up, why, coming = state_of(id)
    if not up and not coming then return nil, why end
    up_since = up and (up_since or dockrun.now()) or nil
    if up and dockrun.now() - up_since >= args.settle then return true end
    if dockrun.now() > deadline then return nil, ("%s after %g s"):format(up and "it has not settled" or why, args.timeout) end
    dockrun.sleep(math.min(0.2, args.settle))
  until false
end

for i, container in ipairs(containers) do
  io.stdout:write(("[%d/%d] %s "):format(i, #containers, name_of(container))):flush()
  local ok, why = restart(container.Id)
  print(ok and "is up" or "did not come back: " .. dockrun.safe(why))
  if not ok then
    for left = i + 1, #containers do io.stderr:write("not restarted: ", name_of(containers[left]), "\n") end
    os.exit(1, true)
  end
end
