-- The main job in one picture: a task from its file to a container with a mapped port and limits, changed by an
-- operator's hook on the way, and nothing left of it afterwards. `scripts/demo` builds dockrun and runs this.
local dockrun = require "dockrun"
local output = require "dockrun.cli.output"

local here = arg[0]:match "^(.*)/[^/]*$" or "."

local function step(text) print("\n" .. output.paint("== " .. text, "1;36")) end
local function show(name, value)
  local text = tostring(value):gsub("%x+", function(id) return id:sub(1, 12) end)  -- ids as docker shortens them
  print(("   %-16s %s"):format(name, text))
end

local engine = assert(dockrun.connect())
step "The engine"
show("Docker", ("%s at %s"):format(assert(engine:version()).Version, engine:endpoint()))

local image = dofile(here .. "/busybox.lua")
local had_image = engine:image_inspect "dockrun-demo:1" ~= nil
assert(image(engine, "dockrun-demo:1"))
show("image", "dockrun-demo:1, made from the static busybox")

step "dockrun run --hooks scripts/example/hooks.lua scripts/example/web.lua"
dockrun.options.hooks = here .. "/example/hooks.lua"
local agent = assert(dockrun.agent())
local running = dockrun.queue()
agent.emitter:listen(function(event)
  show(event.event, event.ports and output.ports(event.ports) or event.message or event.container_id or "")
  if event.event == "started" or event.event == "failed" then running:push(event) end
end)
agent:submit(assert(dockrun.load_job(here .. "/example/web.lua")))
local started = running:pop(60)
if not started or started.event == "failed" then
  agent:stop()
  if not had_image then engine:image_remove "dockrun-demo:1" end
  error("the job did not start", 0)
end

local container = assert(engine:container_inspect(started.container_id))
local port = started.ports[1]
step(("The mapped port answers: http://127.0.0.1:%d/ is port 8080 of the container"):format(port.host_port))
local page
for _ = 1, 50 do
  page = dockrun.http.request { url = ("http://127.0.0.1:%d/"):format(port.host_port), timeout = 2 }
  if page and page.status == 200 then break end
  dockrun.sleep(0.1)
end
for line in (page and page.body or "no answer\n"):gmatch "(.-)\n" do
  if line:find "^NOMAD_" and not line:find "NOMAD_ALLOC_ID" then print("   " .. line) end
end

step "Its limits, read from its cgroup"
local stat = assert(dockrun.cgroup.read(container.State.Pid))
show("memory", ("%.1f of %d MB, swap included"):format(stat.memory.usage / 2 ^ 20, (stat.memory.swap_limit or stat.memory.limit) // 2 ^ 20))
show("cpu", stat.cpu.shares and ("%d shares"):format(stat.cpu.shares) or ("weight %d"):format(stat.cpu.weight))
show("pids", ("%d of %s"):format(stat.pids.current, stat.pids.limit or "unlimited"))

step "What the operator's hook changed"
show("label owner", container.Config.Labels.owner)
show("PidsLimit", container.HostConfig.PidsLimit)

step "Stop and clean up"
agent:stop "the demo is over"
agent:close()
local left = #assert(engine:container_list { all = true, filters = { label = { "dockrun.job=web" } } })
show("containers left", left)
if not had_image then assert(engine:image_remove "dockrun-demo:1") end
os.exit(left == 0 and page and page.status == 200 and 0 or 1, true)
