-- The host of a simulated process: files (real ones, in the world's own directory), sockets, other processes, ports,
-- cgroups, and the answers of containers on their ports.
local cgroup = require "dockrun.core.cgroup"
local pipes = require "spec.sim.pipe"
local ports = require "spec.sim.ports"
local programs = require "spec.sim.programs"
local runtime = require "dockrun.core.runtime"
local runtimes = require "spec.sim.runtime"
local standard = require "dockrun.core.standard"
local uv = require "luv"

local M = {}

-- ---- the containers' programs, as the host sees them ----------------------------------------------

-- Whether a program answers on a host port, and answers well.
local function answers(world, port)
  local holder = world.engine:holder(port)
  if not holder then return nil end
  if holder == "foreign" then return true end
  return programs.is_well(holder.program, world.sched.time - holder.began)
end

local Socket = {}
Socket.__index = Socket

function Socket:connect(_, port, done)
  local world, process = self.world, self.process
  world.sched:after(world.faults:latency(), function()
    local err = answers(world, port) == nil and "ECONNREFUSED: connection refused" or nil
    world.sched:spawn(process, done, err)
  end, process)
  return true
end

function Socket.close() end

local function request(world)
  return function(options)
    world.sched:wait(world.faults:latency())
    local well = answers(world, tonumber(options.url:match ":(%d+)/"))
    if well == nil then return nil, runtime.error("unreachable", "connection refused") end
    return { status = well and 200 or 503, headers = {}, body = "" }
  end
end

local function cgroups(world)
  return setmetatable({
    version = function() return 1 end,
    find = function(pid)
      for _, container in ipairs(world.engine.order) do
        if container.State.Pid == pid then return { version = 1, paths = { memory = ("/cgroup/%d/%s"):format(pid, container.Id) } } end
      end
      return nil, runtime.error("system", "no such process")
    end,
  }, { __index = cgroup })
end

-- An open file that counts the kills in a container's cgroup; nil if the path is of no cgroup, or the cgroup is gone.
local function open_count(world, path)
  local pid, id = path:match "^/cgroup/(%d+)/(%x+)/memory%.oom_control$"
  for _, container in ipairs(pid and world.engine.order or {}) do
    if container.Id == id and container.State.Pid == tonumber(pid) then return { container = container, pid = tonumber(pid) } end
  end
end

local function read_count(count)
  if count.container.State.Pid ~= count.pid then return nil, "ENODEV: no such device" end
  return ("oom_kill_disable 0\nunder_oom 0\noom_kill %d\n"):format(count.container.oom_kills or 0)
end

-- ---- files --------------------------------------------------------------------------------------

local function virtual_file(text)
  return {
    read = function() return text end,
    lines = function() return text:gmatch "[^\n]+" end,
    close = function() return true end,
  }
end

-- The files of /proc that show which processes live: proc(5).
local function proc_file(world, path)
  if path == "/proc/sys/kernel/random/boot_id" then return virtual_file "b007\n" end
  local pid = tonumber(path:match "^/proc/(%d+)/stat$")
  if pid == 1 then return virtual_file(("1 (init) S%s 1 0"):format((" 0"):rep(18))) end
  for _, process in ipairs(pid and world.processes or {}) do
    if process.pid == pid and not process.dead then
      return virtual_file(("%d (dockrun) S%s %d 0"):format(pid, (" 0"):rep(18), process.start))
    end
  end
end

local function input_output(world, process)
  local function sink(name)
    return {
      write = function(self, ...)
        world:output(process, name, table.concat({ ... }))
        return self
      end,
      flush = function(self) return self end,
    }
  end
  local out, diagnostics = sink "stdout", sink "stderr"
  return {
    stdout = out, stderr = diagnostics, write = function(...) return out:write(...) end,
    open = function(path, mode)
      if path:sub(1, #world.dir) == world.dir then return io.open(path, mode) end
      local file = proc_file(world, path)
      if not file then return nil, path .. ": No such file or directory", 2 end
      return file
    end,
  }
end

local function operating_system(world)
  return {
    getenv = function(name) return name == "HOME" and world.dir or nil end,
    time = function(t) return t and os.time(t) or runtimes.EPOCH + math.floor(world.sched.time) end,
    clock = function() return world.sched.time end,
    date = function(format, time) return os.date(format, time or runtimes.EPOCH + math.floor(world.sched.time)) end,
    exit = function() error "a process of the simulation does not exit" end,
  }
end

-- ---- libuv --------------------------------------------------------------------------------------

-- The peer of a simulated pipe: always this user, as all processes of the host are.
local peer = {
  of = function(pipe)
    local other = pipe.peer and pipe.peer.process
    return { pid = other and other.pid or 0, uid = uv.getuid(), gid = 0, groups = {} }
  end,
}

local CPU = { { model = "sim", speed = 2000, times = {} }, { model = "sim", speed = 2000, times = {} } }

local function libuv(world, process)
  local sim = setmetatable({
    os_getpid = function() return process.pid end,
    os_gethostname = function() return "sim" end,
    os_uname = function() return { sysname = "Linux", release = "5.10.0", version = "1", machine = "x86_64" } end,
    cpu_info = function() return CPU end,
    get_total_memory = function() return 4 << 30 end,
    interface_addresses = function() return { eth0 = { { family = "inet", internal = false, ip = "192.0.2.1" } } } end,
    guess_handle = function() return "file" end,
    fs_open = function(path, ...)
      if path:find "^/cgroup/" then return open_count(world, path) end
      return uv.fs_open(path, ...)
    end,
    fs_read = function(file, ...) return (type(file) == "table" and read_count or uv.fs_read)(file, ...) end,
    fs_close = function(file) return type(file) == "table" or uv.fs_close(file) end,
    new_poll = function() return nil, "EPERM: operation not permitted" end,
    kill = function() return nil, "ESRCH: no such process", "ESRCH" end,
    spawn = function() return nil, "ENOENT: no such file or directory", "ENOENT" end,
    fs_mkdir = function(path, mode)
      local ok, why, code = uv.fs_mkdir(path, mode)
      if ok then world.made_at[path] = world.sched.time end
      return ok, why, code
    end,
    -- The real stat, with this world's times.
    fs_stat = function(path)
      local stat, why, code = uv.fs_stat(path)
      if stat then stat.mtime = { sec = runtimes.EPOCH + math.floor(world.made_at[path] or 0), nsec = 0 } end
      return stat, why, code
    end,
    hrtime = function() return math.floor(world.sched.time * 1e9) end,
    random = function(count)
      local bytes = {}
      for i = 1, count do bytes[i] = string.char(world.random(256) - 1) end
      return table.concat(bytes)
    end,
    new_tcp = function() return setmetatable({ world = world, process = process }, Socket) end,
    new_pipe = function() return pipes.new(world, process) end,
    fileno = function(pipe) return pipe end,
  }, { __index = uv })
  return sim
end

---@class SimHost
---@field uv table      each field: the module of this name for the process
---@field io table
---@field os table
---@field http table
---@field cgroup table
---@field ports table
---@field peer table
---@field standard table

-- dockrun.core.standard: a process's output goes to the world.
local function standard_streams(world, process)
  return {
    write = function(fd, bytes)
      world:output(process, fd == 1 and "stdout" or "stderr", bytes)
      return true
    end,
    wait = function() return true end, end_with_reader = function() end, size = function() end, safe = standard.safe,
  }
end

---@param world World
---@param process SimProcess
---@return SimHost
function M.new(world, process)
  return {
    uv = libuv(world, process), io = input_output(world, process), os = operating_system(world),
    http = { request = request(world) }, cgroup = cgroups(world), ports = ports.new(world, process),
    peer = peer, standard = standard_streams(world, process),
  }
end

return M
