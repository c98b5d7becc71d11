-- A full disk, under the state and under the engine: a clear error for work that cannot start, and no loss for running tasks.
local engines = require "spec.engine"
local process = require "spec.process"
local uv = require "luv"
local worlds = require "spec.faults.world"

-- A directory with a file system of its own, unmounted with its scope. Only an engine that starts later can use it.
local function small_disk(size)
  local at = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-disk-XXXXXX"))
  local mounted = process.run({ "-t", "tmpfs", "-o", "size=" .. size, "dockrun-spec", at }, { program = "mount" })
  assert.equal(0, mounted.code, mounted.stderr)
  return at, setmetatable({}, { __close = function()
    process.run({ "--lazy", at }, { program = "umount" })
    uv.fs_rmdir(at)
  end })
end

-- Fills the file system to its last byte. Removing the file makes room again.
local function fill(at)
  local path = at .. "/filler"
  local fd = assert(uv.fs_open(path, "w", 384))
  for _, size in ipairs { 65536, 4096, 1 } do
    local block = ("x"):rep(size)
    while (uv.fs_write(fd, block) or 0) == size do end
  end
  uv.fs_close(fd)
  return path
end

describe("a full disk", function()
  it("under the state is a clear error before anything starts, and no error once there is room", function()
    local disk, mount = small_disk "2m"
    local _ <close> = mount
    local e <close> = engines.start()
    engines.image(e, "busybox:1")
    assert(uv.fs_mkdir(disk .. "/state", 448))
    local world <close> = worlds.new(e.endpoint, { state_dir = disk .. "/state" })
    local filler = fill(disk)
    local result = world:run { "run", "--json", world.job_file }
    assert.truthy(result.code ~= 0 and result.code ~= 4, result.stderr)
    assert.truthy(result.stderr:find "full" or result.stderr:find "no space", result.stderr)
    assert.equal(0, world:count "create")
    os.remove(filler)
    result = world:run { "run", "--json", world.job_file }
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.same({}, world:leftovers((worlds.events(result.stdout))))
  end)

  it("under the state does not disturb a running task, and its end is reported", function()
    local disk, mount = small_disk "2m"
    local _ <close> = mount
    local e <close> = engines.start()
    engines.image(e, "busybox:1")
    assert(uv.fs_mkdir(disk .. "/state", 448))
    local world <close> = worlds.new(e.endpoint, {
      command = "until test -e /local/end; do sleep 0.1; done; exit 9", exit_code = 9, attempts = 0, state_dir = disk .. "/state",
    })
    local child = world:start { "run", "--json", world.job_file }
    local alloc = child:wait_for '"alloc":"([^"]+)"'
    child:wait_for '"event":"started"'
    local path = ("%s/alloc/%s/task/local/end"):format(world.state_dir, alloc)
    assert(io.open(path .. ".new", "w")):close()
    local filler = fill(disk)
    assert(os.rename(path .. ".new", path))  -- a rename needs no space
    local result = child:wait()
    local events, by = worlds.events(result.stdout)
    assert.same({ 1, 9 }, { #by.exited, by.exited[1].exit_code }, result.stdout .. result.stderr)
    assert.equal(1, world:count "start")
    assert.truthy(result.stderr:find "full" or result.stderr:find "no space", result.stderr)
    os.remove(filler)
    -- The next process repairs what could not be recorded.
    local stop = world:run { "stop", world.name }
    assert.equal(0, stop.code, stop.stderr)
    assert.same({}, world:leftovers(events))
  end)

  it("under the engine is reported in the engine's words, and leaves nothing", function()
    local root, mount = small_disk "64m"
    local _ <close> = mount
    local e <close> = engines.start { args = { "--data-root", root } }
    engines.image(e, "busybox:1")
    local world <close> = worlds.new(e.endpoint, { attempts = 0 })
    local filler = fill(root)
    local result = world:run { "run", "--json", world.job_file }
    local _, by = worlds.events(result.stdout)
    assert.equal(1, result.code, result.stdout .. result.stderr)
    assert.truthy(by.failed[1].message:find "no space left", result.stdout)
    os.remove(filler)
    assert.same({}, world:leftovers((worlds.events(result.stdout))))
    result = world:run { "run", "--json", world.job_file }
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.same({}, world:leftovers((worlds.events(result.stdout))))
  end)
end)
