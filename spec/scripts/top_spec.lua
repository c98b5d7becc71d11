-- scripts/top.lua, on containers of a real engine.
local containers = require "spec.scripts.containers"
local json = require "dockrun.core.json"
local process = require "spec.process"

local MB = 1024 * 1024

describe("top.lua", function()
  local set

  before_each(function() set = containers.new() end)
  after_each(function() set:close() end)

  local function top(...) return set:script("top.lua", ...) end

  -- The rows of the output by the containers' short names, without those of other specs.
  local function rows(line)
    local found = {}
    for _, row in ipairs(assert(json.decode(line))) do
      if row.name:sub(1, #set.label) == set.label then found[row.name:sub(#set.label + 2)] = row end
    end
    return found
  end

  local function picture(...)
    local result = process.run(top("--json", "-n", "1", ...))
    assert.equal(0, result.code, result.stderr)
    return rows(result.stdout)
  end

  it("shows the share of a core that a container uses", function()
    local id = set:run("busy", "while :; do :; done", { HostConfig = { NetworkMode = "none", NanoCpus = 200000000 } })
    set:run("idle", "exec sleep 600")
    local shown = picture("-d", "1")
    assert.is_near(20, shown.busy.cpu_percent, 8)
    assert.is_true(shown.idle.cpu_percent < 5)
    assert.equal(id, shown.busy.id)
    assert.is_true(shown.busy.throttled_seconds > 0)
  end)

  it("shows the memory that a container holds, without the page cache, and its limit", function()
    local host = { NetworkMode = "none", Memory = 128 * MB, ShmSize = 64 * MB }
    set:run("holder", [[
      dd if=/dev/zero of=/dev/shm/held bs=1M count=32
      dd if=/dev/zero of=/cached bs=1M count=48
      echo done; exec sleep 600]], { HostConfig = host, Tty = true })
    local shown
    for _ = 1, 50 do  -- until the data is written and the kernel has counted its page cache
      shown = picture("-d", "0.1").holder
      if shown.pids == 1 and shown.memory < 48 * MB then break end
    end
    assert.is_near(34 * MB, shown.memory, 6 * MB)
    assert.equal(128 * MB, shown.memory_limit)
    assert.equal(0, shown.oom_kills)
  end)

  it("prints a table after each delay, as often as asked for", function()
    set:run("a", "exec sleep 600")
    local pictures = 0
    local child <close> = process.start(top("--json", "-d", "0.1", "-n", "3"))
    for line in child:lines() do
      pictures = pictures + 1
      assert.is_number(rows(line).a.cpu_percent)
    end
    assert.equal(3, pictures)
    assert.equal(0, child:wait().code)
  end)

  it("drops a container that ends meanwhile, and adds one that starts", function()
    local id = set:run("ends", "exec sleep 600")
    local child <close> = process.start(top("--json", "-d", "0.1"))
    local next_line = child:lines()
    assert.is_table(rows(next_line()).ends)
    assert(set.engine:container_kill(id))
    set:run("starts", "exec sleep 600")
    local shown
    repeat shown = rows(next_line()) until shown.starts and not shown.ends
    assert.is_nil(shown.starts.cpu_percent)  -- there is no earlier sample to compare with
    assert.is_number(rows(next_line()).starts.cpu_percent)
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
  end)

  it("is not disturbed by a container that ends repeatedly", function()
    local host = { NetworkMode = "none", RestartPolicy = { Name = "always" } }
    set:run("ends", "true", { HostConfig = host })
    set:run("stays", "exec sleep 600")
    local result = process.run(top("--json", "-d", "0.02", "-n", "40"))
    assert.equal(0, result.code, result.stderr)
    for line in result.stdout:gmatch "[^\n]+" do assert.is_table(rows(line).stays) end
  end)

  it("never shows a negative value, also for a container that was restarted meanwhile", function()
    local id = set:run("busy", "test -e /seen && exec sleep 600; touch /seen; while :; do :; done")
    local child <close> = process.start(top("--json", "-d", "0.3"))
    local next_line = child:lines()
    next_line()
    assert(set.engine:container_restart(id))
    for _ = 1, 5 do
      local row = rows(next_line()).busy
      assert.is_true(row == nil or (row.cpu_percent or 0) >= 0)
    end
  end)

  it("prints a table for people, the busiest container first", function()
    set:run("a_idle", "exec sleep 600")
    set:run("b_busy", "while :; do :; done")
    local result = process.run(top("-d", "0.3", "-n", "1"))
    assert.equal(0, result.code, result.stderr)
    assert.matches("^NAME +CPU%% +MEMORY +LIMIT +PIDS +OOM +THROTTLED +PRESSURE\n", result.stdout)
    local busy = result.stdout:find(set:name "b_busy" .. " +%d+%.%d +%d+%.%dK +%S+ +%d+ +0 +0%.0s +%S+\n")
    local idle = result.stdout:find(set:name "a_idle", 1, true)
    assert.is_true(busy and busy < idle, result.stdout)
    assert.is_nil(result.stdout:find("\27", 1, true))
  end)

  for _, case in ipairs {
    { "an invalid delay", { "-d", "often" }, "must be a duration such as '1m30s' or a number of seconds, got 'often'" },
    { "no delay", { "-d", "0s" }, "the delay must be more than 0" },
    { "no picture", { "-n", "0" }, "--count: expected a whole number of at least 1, got '0'" },
    { "a word too many", { "web" }, "too many arguments" },
  } do
    local what, args, message = table.unpack(case)
    it("refuses " .. what, function()
      local result = process.run(top(table.unpack(args)))
      assert.equal(2, result.code)
      assert.matches(message, result.stderr, 1, true)
    end)
  end
end)
