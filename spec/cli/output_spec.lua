-- The format of results: on a terminal, without one, and if they cannot be written.
local process = require "spec.process"

describe("results", function()
  local SHOW = [[
    local output = require "dockrun.output"
    output.columns({ "NAME", "STATE", "TEXT" }, {
      { "one", output.paint("running", "32"), "short" }, { "zwei", output.paint("dead", "90"), "äöü äöü äöü äöü äöü" },
    })]]

  -- The output on a terminal of `columns` columns, with its colours as <green> and so on.
  local function on_terminal(columns, env)
    local words = ("stty cols %d; '%s' -e '%s'"):format(columns, process.program, SHOW)
    local result = process.run({ "-qec", words, "/dev/null" }, { program = "script", env = env })
    assert.equal(0, result.code, result.stderr)
    return (result.stdout:gsub("\r", ""):gsub("\27%[32m", "<green>"):gsub("\27%[90m", "<grey>"):gsub("\27%[0m", "<>"))
  end

  it("are in coloured columns on a terminal", function()
    assert.equal([[
NAME  STATE    TEXT
one   <green>running<>  short
zwei  <grey>dead<>     äöü äöü äöü äöü äöü
]], on_terminal(80, { NO_COLOR = false, TERM = "xterm" }))
  end)

  it("are cut at the terminal's width, and so are their colours", function()
    local env = { NO_COLOR = false, TERM = "xterm" }
    assert.equal([[
NAME  STATE    TEXT
one   <green>running<>  short
zwei  <grey>dead<>     äöü ä…
]], on_terminal(21, env))
    assert.matches("zwei  <grey>dead<>     äöü äöü äöü äöü äöü\n", on_terminal(34, env))
    assert.matches("zwei  <grey>dead<>     äöü äöü äöü äöü ä…\n", on_terminal(33, env))
  end)

  for name, env in pairs { ["NO_COLOR is set"] = { NO_COLOR = "1", TERM = "xterm" }, ["the terminal is dumb"] = { TERM = "dumb" } } do
    it("have no colours if " .. name, function() assert.is_nil(on_terminal(80, env):find "[<\27]") end)
  end

  it("are plain and whole without a terminal", function()
    local result = process.run({ "-e", SHOW }, { env = { COLUMNS = "20" } })
    assert.equal("NAME  STATE    TEXT\none   running  short\nzwei  dead     äöü äöü äöü äöü äöü\n", result.stdout)
  end)

  it("that cannot be written are an error", function()
    local result = process.run({ "-c", ("'%s' version >/dev/full"):format(process.program) }, { program = "sh" })
    assert.equal(1, result.code)
    assert.matches("dockrun: error: cannot write the results: .*No space left", result.stderr)
  end)

  it("without a reader are no error", function()
    local words = ("{ sleep 0.2; '%s' version; echo $? >&2; } | true"):format(process.program)
    assert.equal("0\n", process.run({ "-c", words }, { program = "sh" }).stderr)
  end)
end)
