-- Private engines and registries for specs: scripts/engine and scripts/registry, each in a directory of its own.
--
--   local e = engine.shared()                      one for the whole run, to inspect and to run containers on
--   local e = engine.start { args = { … } }        one to kill, restart or configure; the spec stops it
--   engine.image(e, "busybox:1")
--
-- Like the scripts, every service that this file starts ends with this process, however that ends.
local docker = require "dockrun.core.docker"
local dockrun = require "dockrun"
local uv = require "luv"
local pl_dir = require "pl.dir"

local M = {}

local TOP = assert(uv.fs_realpath(debug.getinfo(1, "S").source:match "^@(.*)spec/engine%.lua$" .. "."))
local PATIENCE = 300 -- seconds for any step of a script; longer than its own time-outs

-- ---- a script in the foreground of a directory ---------------------------------------------------

---@class Service
---@field dir string       holds `log` while it runs
---@field stopped boolean
local Service = {}
Service.__index = Service

local running = {} ---@type table<Service, true>

-- Waits for reached() to be true; raises an error with the script's whole output if it ends first or the time is up.
function Service:await(what, reached)
  local deadline = dockrun.now() + PATIENCE
  while not reached() do
    if self.code and what ~= "end" then
      error(("%s ended with %d before it was %s: %s"):format(self.script, self.code, what, self.said), 0)
    end
    if dockrun.now() > deadline then
      error(("%s is not at its %s after %d s: %s"):format(self.script, what, PATIENCE, self.said), 0)
    end
    dockrun.sleep(0.02)
  end
end

-- Waits for the script's next "ready ADDRESS".
---@return string address
function Service:await_ready()
  local address, seen
  self:await("ready", function()
    address, seen = self.said:match("ready ([^\n]+)\n()", self.seen)
    return address
  end)
  self.seen = seen
  return address
end

-- Starts `script [FLAGS] DIR [ARGS]` and waits until it is ready.
---@return Service service
---@return string address
local function launch(class, script, flags, args)
  local self = setmetatable({ script = script, said = "", seen = 1, stopped = false }, class)
  self.dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
  local words = table.move(flags, 1, #flags, 1, {})
  words[#words + 1] = self.dir
  table.move(args or {}, 1, #(args or {}), #words + 1, words)
  local out, diagnostics = uv.new_pipe(), uv.new_pipe()
  local process, why = uv.spawn(TOP .. "/scripts/" .. script, { args = words, stdio = { nil, out, diagnostics } },
    function(code)
      self.code = code
      self.process:close()
    end)
  if not process then error(("cannot start scripts/%s: %s"):format(script, why), 0) end
  self.process = process
  for _, pipe in ipairs { out, diagnostics } do
    pipe:read_start(function(_, data)
      if data then self.said = self.said .. data else pipe:close() end
    end)
  end
  running[self] = true
  return self, self:await_ready()
end

--- Ends the script and waits until it has removed everything. May be called twice.
function Service:stop()
  if self.stopped then return end
  self.stopped = true
  running[self] = nil
  if not self.code then self.process:kill "sigterm" end
  self:await("end", function() return self.code end)
  pl_dir.rmtree(self.dir)
end

Service.__close = Service.stop

-- ---- engines -------------------------------------------------------------------------------------

---@class SpecEngine: Service
---@field endpoint string  unix://…
---@field pid integer      of dockerd
local Engine = setmetatable({}, Service)
Engine.__index = Engine
Engine.__close = Service.stop

local function read_pid(self)
  local file <close> = assert(io.open(self.dir .. "/pid"))
  return file:read "n"
end

--- Starts an engine of the caller's own.
---@param opts? { args?: string[] }  further options of dockerd, such as --live-restore
---@return SpecEngine
function M.start(opts)
  local self, endpoint = launch(Engine, "engine", { "--keep" }, opts and opts.args)
  self.endpoint, self.pid = endpoint, read_pid(self)
  return self
end

--- Sends a signal to dockerd itself. If that ends it, the engine is away until restart().
---@param signal? string  "sigkill" if left out
function Engine:kill(signal)
  signal = signal or "sigkill"
  assert(uv.kill(self.pid, signal))
  if signal ~= "sigkill" and signal ~= "sigterm" then return end
  self:await("dead", function() return not uv.kill(self.pid, 0) end)
end

--- Restarts dockerd, or starts it if it does not run, on the same data and the same socket.
function Engine:restart()
  self.process:kill "sigusr1"
  self:await_ready()
  self.pid = read_pid(self)
end

-- ---- registries ----------------------------------------------------------------------------------

---@class SpecRegistry: Service
---@field address string  127.0.0.1:PORT, without authentication

--- Starts a registry of the caller's own.
---@return SpecRegistry
function M.start_registry()
  local self, address = launch(Service, "registry", {})
  self.address = address
  return self
end

-- ---- one for all ---------------------------------------------------------------------------------

-- A function that returns the service that the environment's `variable` names, or else the one that start() makes.
local function shared(variable, field, start)
  local service
  return function()
    local given = os.getenv(variable)
    if given then return { [field] = given, stop = function() end } end
    if not service or service.stopped then service = start() end
    return service
  end
end

--- The run's engine, or the one at DOCKRUN_SPEC_ENDPOINT. Other specs use it too: remove your containers.
---@type fun(): SpecEngine
M.shared = shared("DOCKRUN_SPEC_ENDPOINT", "endpoint", M.start)

--- The run's registry, or the one at DOCKRUN_SPEC_REGISTRY.
---@type fun(): SpecRegistry
M.registry = shared("DOCKRUN_SPEC_REGISTRY", "address", M.start_registry)

--- Stops every service that still runs.
function M.stop_all()
  while next(running) do next(running):stop() end
end

-- ---- images --------------------------------------------------------------------------------------

-- Busybox under the names of all its applets. Made once per checkout, completely or not at all.
local MAKE_TAR = [[
set -e
root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
mkdir "$root/bin" "$root/etc" "$root/tmp" "$(dirname "$0")" 2>/dev/null || test -d "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list | grep -vx busybox); do ln -s busybox "$root/bin/$applet"; done
echo root:x:0:0:root:/:/bin/sh >"$root/etc/passwd"
echo nobody:x:65534:65534:nobody:/:/bin/sh >>"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
chmod 755 "$root"
chmod 1777 "$root/tmp"
tar -C "$root" --owner 0 --group 0 --numeric-owner -cf "$0.$$" .
mv "$0.$$" "$0"
]]

local function busybox_tar()
  local path = TOP .. "/build/spec-busybox.tar"
  if not uv.fs_stat(path) then
    assert(os.execute(("sh -c '%s' '%s'"):format(MAKE_TAR:gsub("'", [['\'']]), path)), "cannot make " .. path)
  end
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

--- Makes an image that holds busybox, without a registry. Without `opts`, an existing image is kept.
---@param e { endpoint: string }
---@param ref string   such as "busybox:1" or "127.0.0.1:5000/web:2"
---@param opts? { changes?: string[] }  Dockerfile instructions, such as "CMD [\"sleep\", \"60\"]"
---@return string id   sha256:…
function M.image(e, ref, opts)
  local repo, tag = ref:match "^(.+):([^:/]+)$"
  local engine = assert(docker.connect { endpoint = e.endpoint })
  local here = not opts and engine:image_inspect(ref)
  if here then return here.Id end
  local lines <close> = assert(engine:image_import {
    fromSrc = "-", repo = repo or ref, tag = tag or "latest", body = busybox_tar(),
    changes = opts and opts.changes and table.concat(opts.changes, "\n"),
  })
  local id
  for line in lines do
    assert(not line.error, line.error)
    id = line.status
  end
  return id
end

--- The shared engine with "busybox:1" on it, as most specs need it.
---@return table engine
---@return string endpoint
function M.ready()
  local e = M.shared()
  M.image(e, "busybox:1")
  return assert(docker.connect { endpoint = e.endpoint }), e.endpoint
end

return M
