-- The kernel's count of what it killed for want of memory, on files that stand for it.
local cgroup = require "dockrun.core.cgroup"
local dockrun = require "dockrun"
local eventually = require "spec.eventually"
local oom = require "dockrun.task.oom"
local uv = require "luv"

local ID = ("%064x"):format(uv.os_getpid())  -- no other copy of this spec makes the same group

-- What is undone after each example, last first, even of one that failed.
local undo
local function later(fn) undo[#undo + 1] = fn end

describe("the kernel's count of kills", function()
  before_each(function() undo = {} end)
  after_each(function()
    for i = #undo, 1, -1 do undo[i]() end
  end)

  local function write(path, text)
    local file <close> = assert(io.open(path, "w"))
    assert(file:write(text))
  end

  -- A task in a group of version 2 below `point`; `told` is the count of each `oom` hook.
  local function task_in(point)
    local proc = assert(uv.fs_mkdtemp "/tmp/dockrun-oom-XXXXXX")
    later(function() os.execute("rm -r " .. proc) end)
    assert(os.execute(("mkdir -p %s/self %s/7"):format(proc, proc)))
    write(proc .. "/self/mountinfo", ("40 31 0:40 / %s rw - cgroup2 cgroup2 rw\n"):format(point or proc))
    write(proc .. "/7/cgroup", ("0::/%s\n"):format(ID))
    local task = { container_id = ID, told = {}, emit = function() end, services = { engine = {
      endpoint = function() return "unix:///x" end,
      container_inspect = function() return { Id = ID, State = { Pid = 7 } } end,
    } } }
    function task.notify_hook(_, name, subject) task.told[#task.told + 1] = name .. " " .. subject.kills end
    return task, { proc = proc }, ("%s/%s"):format(point or proc, ID)
  end

  it("is read once more at the end, from the file that was opened at the start", function()
    local task, root, group = task_in()
    assert(uv.fs_mkdir(group, tonumber("755", 8)))
    write(group .. "/memory.events", "low 0\nmax 5\noom 0\noom_kill 0\noom_group_kill 0\n")
    local watch <close> = oom.watch(task, root)
    eventually("the file is open", function() return watch.file end)
    assert.equal(0, watch:count())
    write(group .. "/memory.events", "low 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert(os.execute("rm -r " .. group))
    assert.equal(2, watch:count())
    assert.same({ "oom 2" }, task.told)
  end)

  it("is 0 if the group does not count memory", function()
    local task, root, group = task_in()
    assert(uv.fs_mkdir(group, tonumber("755", 8)))
    local watch <close> = oom.watch(task, root)
    dockrun.sleep(0.05)
    assert.equal(0, watch:count())
  end)

  it("leaves no descriptor open, however early it is closed", function()
    local function open()
      local count = 0
      for _ in uv.fs_scandir_next, uv.fs_scandir "/proc/self/fd" do count = count + 1 end
      return count
    end
    local task, root, group = task_in()
    assert(uv.fs_mkdir(group, tonumber("755", 8)))
    write(group .. "/memory.events", "oom_kill 0\n")
    local before = open()
    for round = 1, 3 do
      local inspect = task.services.engine.container_inspect
      function task.services.engine.container_inspect()
        dockrun.sleep(0.05)
        return inspect()
      end
      local watch = oom.watch(task, root)
      dockrun.sleep(round * 0.02)
      watch:__close()
      dockrun.sleep(0.1)
    end
    assert.equal(before, open())
  end)

  -- No memory is counted on every kernel, but who is in a group is: that file is changed and announced in the same way.
  it("is told at once if the kernel changes it, and not only at the next look", function()
    local point = cgroup.version() == 2 and "/sys/fs/cgroup" or "/sys/fs/cgroup/unified"
    if not uv.fs_stat(point .. "/cgroup.procs") then return end
    local task, root, group = task_in(point)
    assert(uv.fs_mkdir(group, tonumber("755", 8)))
    local child = assert(uv.spawn("sleep", { args = { "600" } }, function() end))
    later(function()
      child:kill "sigkill"
      eventually("the group is removed", function() return uv.fs_rmdir(group) end)
    end)
    local changes, fs_open, fs_read = 0, uv.fs_open, uv.fs_read
    function uv.fs_open(path, ...) return fs_open(path:gsub("memory%.events$", "cgroup.events"), ...) end
    function uv.fs_read(...) return fs_read(...) and ("oom_kill %d\n"):format(changes) end
    later(function() uv.fs_open, uv.fs_read = fs_open, fs_read end)
    local watch <close> = oom.watch(task, root)
    eventually("the file is open", function() return watch.file end)
    local start = dockrun.now()
    for i = 1, 20 do  -- 20 seconds, if each were seen at the next look
      changes = i
      write((i % 2 == 1 and group or point) .. "/cgroup.procs", tostring(child:get_pid()))
      eventually("the change is seen", function() return watch.kills == i end)
    end
    assert.is_true(dockrun.now() - start < 15)
  end)
end)
