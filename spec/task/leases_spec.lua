-- Ports among processes: many at once, and after some have died.
local process = require "spec.process"
local states = require "spec.states"

describe("ports of many processes", function()
  before_each(states.begin)
  after_each(states.finish)

  local PROCESSES, EACH = 20, 5

  -- A process that takes ports of a small range, says which, and waits to be killed.
  local function taker(number, first)
    return process.start({ "-e", [[
      local allocator = require("dockrun.core.ports").new { from = tonumber(arg[3]), to = tonumber(arg[3]) + 399 }
      local state = assert(require("dockrun.store").open(arg[1]))
      local asked = {}
      for i = 1, tonumber(arg[4]) do asked[i] = { label = "port" .. i } end
      local function lease(port, label)
        return state:lease { ip = "127.0.0.1", port = port, alloc = arg[2], task = "t", label = label }
      end
      local mappings = assert(require("dockrun.task.ports").allocate(allocator, "127.0.0.1", "127.0.0.1", asked, arg[2], lease))
      for _, one in ipairs(mappings) do print(one.host_port) end
      print "done"
      require("dockrun").sleep(600)
    ]], states.dir, "a-" .. number, tostring(first), tostring(EACH) })
  end

  it("are never the same, though all ask at once and half of them died", function()
    local first = 42000 + 500 * math.random(0, 30)
    local owner_of, count = {}, 0
    for round = 1, 2 do
      local children = {}
      for i = 1, PROCESSES do children[i] = taker(round * 100 + i, first) end
      for _, child in ipairs(children) do
        child:wait_for "done\n"
        for port in child.stdout:gmatch "%d+" do
          assert.is_nil(owner_of[port], "port " .. port .. " was given out twice")
          owner_of[port], count = child, count + 1
        end
      end
      for _, child in ipairs(children) do child:close() end  -- by SIGKILL: their leases stay
    end
    assert.equal(2 * PROCESSES * EACH, count)
    local state = assert(states.open())
    assert.equal(count, #assert(state:leases()))
    assert.equal(count, #assert(state:reclaim_leases(function() return false end)))
    assert.equal(0, #assert(state:leases()))
  end)
end)
