-- The prompt, on a terminal of its own (script(1) makes it).
local eventually = require "spec.eventually"
local process = require "spec.process"

describe("the prompt", function()
  -- Starts it alone on its terminal: its Ctrl-C would kill a shell beside it. `say` types a line, or keys, and waits
  -- for the expected output.
  local function prompt()
    local child = process.start(
      { "-qec", "exec " .. process.program .. " --endpoint unix:///nowhere/docker.sock", "/dev/null" },
      { program = "script", stdin = true, env = {
        TERM = "dumb", INPUTRC = "/dev/null", HOME = "/nowhere", ASAN_OPTIONS = "detect_leaks=0", -- readline keeps its history
      } })
    local seen = 0
    local function expect(pattern)
      seen = eventually(("'%s' after %q"):format(pattern, child.stdout:sub(1, seen)), function()
        local _, to = child.stdout:find(pattern, seen + 1)
        assert(to or not child.result, child.stdout .. child.stderr)
        return to, child.stdout
      end)
    end
    expect "Ctrl%-D ends%.\r?\n> "
    return child, function(keys, pattern)
      child:write(keys)
      expect(pattern)
    end
  end

  it("evaluates lines as lua does: expressions, and statements over several lines", function()
    local child <close>, say = prompt()
    say("1 + 1\n", "\n2\r?\n> ")
    say("'a', nil, 'b'\n", "\na\tnil\tb\r?\n> ")
    say("x = 5\n", "x = 5\r?\n> ")
    say("for i = x, 6 do\n", "\n>> ")
    say("print('line ' .. i)\n", "\n>> ")
    say("end\n", "line 5\r?\nline 6\r?\n> ")
    say("\4", "\n")
    assert.equal(0, child:wait().code)
  end)

  it("shows errors and continues", function()
    local child <close>, say = prompt()
    say("error 'boom'\n", "stdin:1: boom\r?\nstack traceback:.-> ")
    say("x x\n", "stdin:1: syntax error near 'x'\r?\n> ")
    say("engine:info()\n", "nil\tcannot reach the Docker engine at unix:///nowhere/docker.sock.-\n> ")
    say("os.exit(7)\n", "\n")
    assert.equal(7, child:wait().code)
  end)

  it("lets tasks continue while it waits for a line", function()
    local child <close>, say = prompt()
    say("for i = 1, 3 do dockrun.spawn(function() dockrun.sleep(0.05 * i) print('tick ' .. i) end) end\n", "tick 1.-tick 2.-tick 3")
    say("'still ' .. 'here'\n", "still here")
    say("\4", "\n")
    assert.equal(0, child:wait().code)
  end)

  it("is interrupted by Ctrl-C: the running code, or the line", function()
    local child <close>, say = prompt()
    say("print 'sleeping' dockrun.sleep(60)\n", "\nsleeping\r?\n")
    say("\3", "interrupted by SIGINT\r?\n> ")
    say("print 'busy' while true do end\n", "\nbusy\r?\n")
    say("\3", "interrupted by SIGINT.-> ")
    say("print('never')", "'never'%)")
    say("\3", "\n> ")
    say("print('next')\n", "\nnext\r?\n> ")
    assert.is_nil(child.stdout:find "\nnever\r?\n")
    say("\4", "\n")
    assert.equal(0, child:wait().code)
  end)

  it("recalls earlier lines", function()
    local child <close>, say = prompt()
    say("print('again ' .. 'and')\n", "\nagain and\r?\n> ")
    say("\16\n", "\nagain and\r?\n> ") -- Ctrl-P
    say("\4", "\n")
    assert.equal(0, child:wait().code)
  end)
end)
