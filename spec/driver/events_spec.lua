local engines = require "spec.engine"
local jobs = require "spec.jobs"
local watch = require "dockrun.driver.events"

describe("the watch of an engine's containers", function()
  -- Until one of that name comes.
  local function await(queue, action)
    local seen = {}
    repeat
      local event = queue:pop(120)
      assert.truthy(event, ("no '%s' after %s"):format(action, table.concat(seen, " ")))
      seen[#seen + 1] = event.action
    until event.action == action
    return seen
  end

  it("continues after an unexpected error, and has every container inspected again", function()
    local engine = engines.ready()
    local failures = 1
    local fragile = {}
    for _, name in ipairs { "system_ping", "events" } do
      fragile[name] = function(_, ...) return engine[name](engine, ...) end
    end
    function fragile.container_list(_, ...)
      failures = failures - 1
      if failures >= 0 then error "not enough memory" end
      return engine:container_list(...)
    end
    local told = {}
    local watched = watch.new(fragile, { interval = 0.1 })
    watched.lost = function(err) told[#told + 1] = tostring(err) end
    watched.found = function() told[#told + 1] = "found" end
    local _ <close> = setmetatable({}, { __close = function() watched:stop() end })
    local name = jobs.unique "watched"
    local id = assert(engine:container_create { name = name, body = { Image = "busybox:1", Cmd = { "true" } } }).Id
    local _ <close> = setmetatable({}, { __close = function() engine:container_remove(id, { force = true }) end })
    local queue = watched:add(id)
    assert(watched:start())
    await(queue, "lost")
    await(queue, "resync")
    assert(engine:container_start(id))
    await(queue, "die")
    assert.equal(2, #told)
    assert.matches("not enough memory", told[1])
    assert.equal("found", told[2])
  end)

  it("ends when it is stopped", function()
    local watched = watch.new(engines.ready())
    assert(watched:start())
    local task = watched.task
    watched:stop()
    task:join(5)
    assert.equal("failed", task:status())
  end)
end)
