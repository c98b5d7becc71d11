-- RESTARTS (200) of tasks that bind paths which other tasks replace by links: see spec/faults/escape.lua.
local engines = require "spec.engine"
local escape = require "spec.faults.escape"

local RESTARTS = tonumber(os.getenv "RESTARTS") or 200

describe("tasks that restart many times while others replace the paths that they bind by links", function()
  it("start each time, and bind nothing from outside of their allocations", function()
    local _, endpoint = engines.ready()
    local count, restarts = 6, 0
    while restarts < RESTARTS do
      local each = math.min(10, math.ceil((RESTARTS - restarts) / count))
      local found = escape.race(endpoint, { count = count, restarts = each, timeout = 3600 })
      local why = ("exit code 1; more than %d restarts in 86400 s, and the mode is fail"):format(each)
      assert.same({ restarts = count * each, out = {}, failures = { [why] = true } }, found)
      restarts = restarts + found.restarts
    end
  end)
end)
