-- The prompt, on a terminal of script(1).
local process = require "spec.process"

describe("the prompt", function()
  local child

  before_each(function()
    local command = ("'%s' --endpoint unix:///no/such.sock"):format(process.program)
    child = process.start({ "-qec", command, "/dev/null" }, {
      program = "script", stdin = true, env = { TERM = "dumb", ASAN_OPTIONS = "detect_leaks=0" },  -- readline's own, kept to the end
    })
    child:wait_for "Ctrl%-D ends%."
  end)
  after_each(function() child:close() end)

  -- Types, at the prompt, and waits until that is said.
  local function type_in(text, pattern)
    child:wait_for "\n> $"
    child:write(text)
    child:wait_for(pattern)
  end

  -- Ctrl-D, at the prompt: what comes before the terminal is readline's is lost.
  local function leave()
    child:wait_for "\n> $"
    child:write "\4"
    assert.equal(0, child:wait().code)
  end

  it("shows what an expression is, goes on over several lines, and ends with Ctrl-D", function()
    type_in("6 * 7, dockrun.version\n", "\n42\t%d+%.%d+%.%d+\r\n")
    type_in("for i = 1, 2 do\nprint('line ' .. i)\nend\n", "\nline 1\r\nline 2\r\n")
    type_in("engine:version()\n", "cannot reach the Docker engine at unix:///no/such%.sock")
    type_in("error 'on purpose'\n", "on purpose\r\nstack traceback")
    leave()
  end)

  it("comes back after Ctrl-C, from what runs and from what was being typed", function()
    type_in("print 'one' dockrun.sleep(600)\n", "\none\r\n")
    child:write "\3"
    child:wait_for "interrupted by SIGINT"
    type_in("print 'two' while true do end\n", "\ntwo\r\n")
    child:write "\3"
    child:wait_for "interrupted by SIGINT.*interrupted by SIGINT"
    type_in("half a line", "half a line")
    child:write "\3\n"
    child:wait_for(("interrupted by SIGINT.*"):rep(3))
    type_in("'still' .. ' here'\n", "\nstill here\r\n")
    leave()
  end)
end)
