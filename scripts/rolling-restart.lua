#!/usr/bin/env dockrun
-- Restarts the containers that carry a label, one after the other. Goes on only once the container runs, is healthy
-- (where its image says how to tell) and has stayed so; stops at the first that does not come back.
--
--   dockrun scripts/rolling-restart.lua [--settle S] [--timeout S] LABEL[=VALUE]
local argparse = require "argparse"
local dockrun = require "dockrun"

local parser = argparse("rolling-restart.lua", "Restarts containers by label, one at a time.")
parser:argument("label", "LABEL or LABEL=VALUE.")
parser:option("--settle", "Seconds that a container must stay up before the next.", "2"):convert(tonumber)
parser:option("--timeout", "Seconds that a container may take to come back.", "60"):convert(tonumber)
local args = parser:parse()

local engine = assert(dockrun.connect())
local containers = assert(engine:container_list { filters = { label = { args.label } } })
table.sort(containers, function(a, b) return a.Names[1] < b.Names[1] end)
if #containers == 0 then
  io.stderr:write("no running container has the label ", args.label, "\n")
  os.exit(1, true)
end

-- Whether it runs and is as healthy as it can tell; an error once it cannot become so.
local function is_up(id)
  local state = assert(engine:container_inspect(id)).State
  if not state.Running then error(("it stopped with exit code %d"):format(state.ExitCode), 0) end
  return not state.Health or state.Health.Status == "healthy"
end

local function wait_until_up(id)
  local deadline = dockrun.now() + args.timeout
  local up_since
  repeat
    if is_up(id) then
      up_since = up_since or dockrun.now()
      if dockrun.now() - up_since >= args.settle then return end
    else
      up_since = nil
    end
    dockrun.sleep(math.min(0.2, args.settle))
  until dockrun.now() > deadline
  error(("not up after %g s"):format(args.timeout), 0)
end

for i, container in ipairs(containers) do
  local name = container.Names[1]:gsub("^/", "")
  io.stdout:write(("[%d/%d] %s "):format(i, #containers, name)):flush()
  assert(engine:container_restart(container.Id))
  local ok, why = pcall(wait_until_up, container.Id)
  print(ok and "is up" or "did not come back: " .. tostring(why))
  if not ok then
    io.stderr:write(("%d container%s left as they were\n"):format(#containers - i, #containers - i == 1 and "" or "s"))
    os.exit(1, true)
  end
end
