-- A short race; spec/long/escape_spec.lua has the long one.
local engines = require "spec.engine"
local escape = require "spec.faults.escape"

describe("a task that restarts while others replace the paths that it binds by links", function()
  it("starts each time, and binds nothing from outside of its allocation", function()
    local _, endpoint = engines.ready()
    local found = escape.race(endpoint, { count = 2, restarts = 3, timeout = 300 })
    assert.same({
      restarts = 6, out = {}, failures = { ["exit code 1; more than 3 restarts in 86400 s, and the mode is fail"] = true },
    }, found)
  end)
end)
