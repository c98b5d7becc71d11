-- Shows the main use: a job becomes a container with a mapped port and limits, an operator's hook changes it on the way, and
-- nothing is left afterwards. `scripts/demo` builds dockrun and runs this.
local dockrun = require "dockrun"

local output = dockrun.output

local here = arg[0]:match "^(.*)/[^/]*$" or "."
local IMAGE = "dockrun-demo:1"

local function step(text) output.result("\n" .. output.paint("== " .. text, "1;36")) end
local function show(name, value) print(("   %-16s %s"):format(name, value)) end

local engine = assert(dockrun.connect())
step "The engine"
show("Docker", assert(engine:version()).Version)
show("endpoint", engine:endpoint())

-- Restores the engine at the end, also after an error or Ctrl-C.
local had_image = engine:image_inspect(IMAGE) ~= nil
local _ <close> = setmetatable({}, { __close = function()
  if had_image then return end
  local removed, err
  for _ = 1, 50 do  -- the engine may still be removing the container that uses it
    removed, err = engine:image_remove(IMAGE)
    if removed or err.status == 404 then return end
    dockrun.sleep(0.1)
  end
  io.stderr:write(("the image %s is left: %s\n"):format(IMAGE, err))
end })
if not had_image then assert(dofile(here .. "/busybox.lua")(engine, IMAGE)) end
show("image", IMAGE .. (had_image and ", which is here" or ", made from the static busybox"))

step "dockrun run --hooks scripts/example/hooks.lua scripts/example/web.lua"
dockrun.options.hooks = here .. "/example/hooks.lua"
local agent = assert(dockrun.agent())
local job = assert(dockrun.load_job(here .. "/example/web.lua"))
local stopped = false
local function stop()
  if stopped then return end
  stopped = true
  agent:stop(job.name, { reason = "the demo is over" })
  agent:close()
end
local _ <close> = setmetatable({}, { __close = stop })
local news = dockrun.queue()
agent.emitter:listen(function(event)
  local id = event.container_id and event.container_id:sub(1, 12)  -- as docker shortens it
  local value = event.event == "created" and id or event.ports and output.ports(event.ports) or event.message or id or event.job
  show(event.event, value)
  if event.event == "started" or event.event == "failed" then news:push(event) end
end)
assert(agent:run(job, { timeout = 60 }))
local started = news:pop(1)
if not started or started.event == "failed" then error("the job did not start", 0) end

local container = assert(engine:container_inspect(started.container_id))
local port = started.ports[1]
local url = ("http://127.0.0.1:%d/"):format(port.host_port)
step(("%s answers: it is port %d of the container"):format(url, port.container_port))
local page
for _ = 1, 100 do
  page = dockrun.http.request { url = url, timeout = 2 }
  if page and page.status == 200 then break end
  dockrun.sleep(0.1)
end
if not page or page.status ~= 200 then error(url .. " does not answer", 0) end
for line in page.body:gmatch "[^\n]+" do
  if line:find "^NOMAD_" and not line:find "^NOMAD_ALLOC_ID" then print("   " .. line) end
end

step "Its limits, read from its cgroup"
local stat = assert(dockrun.cgroup.read(container.State.Pid))
show("memory", ("%s of %s"):format(output.size(stat.memory.usage), output.size(stat.memory.limit)))
local swap = stat.memory.swap_limit and stat.memory.swap_limit - stat.memory.limit
if swap then show("swap", swap == 0 and "none" or output.size(swap)) end
show("cpu", stat.cpu.shares and ("%d shares"):format(stat.cpu.shares) or ("weight %d"):format(stat.cpu.weight))
show("processes", ("%d of %s"):format(stat.pids.current, stat.pids.limit or "any number"))

step "What the operator's hook changed"
show("label owner", container.Config.Labels.owner)
show("PidsLimit", container.HostConfig.PidsLimit)

step "Stop and clean up"
stop()
local left = #assert(engine:container_list { all = true, filters = { label = { "dockrun.alloc=" .. started.alloc } } })
show("containers left", left)
local free, why = dockrun.ports.probe("0.0.0.0", port.host_port)
show("port " .. port.host_port, free and "free again, tcp and udp" or why)
if left > 0 or not free then error("something is left", 0) end
