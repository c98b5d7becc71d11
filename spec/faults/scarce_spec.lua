-- Few file descriptors and little memory for the process: each command ends with one of dockrun's exit codes and a message.
local process = require "spec.process"
local states = require "spec.states"
local uv = require "luv"

local CODES = { [0] = true, [1] = true, [2] = true, [3] = true, [4] = true }
local JOB = 'job "x" { group "g" { task "t" { driver = "docker"\n config { image = "busybox:1" } } } }'

describe("a process with tight limits", function()
  local path

  before_each(function()
    states.begin()
    path = states.dir .. ".nomad"
    local file <close> = assert(io.open(path, "w"))
    file:write(JOB)
  end)
  after_each(function()
    os.remove(path)
    states.finish()
  end)

  local function commands()
    return { { "version" }, { "validate", path }, { "-e", "print(1)" }, { "status" }, { "run", path }, { "agent" } }
  end

  local function check(limit, command)
    local args = { limit, process.program, "--endpoint", "unix:///nonexistent", "--state-dir", states.dir }
    table.move(command, 1, #command, #args + 1, args)
    -- The leak checker of the sanitizers opens files too.
    local result = process.run(args, { program = "prlimit", env = { ASAN_OPTIONS = "detect_leaks=0" } })
    local what = ("%s %s: %s %s\n%s"):format(limit, command[1], result.code, result.signal, result.stderr)
    if result.code == 127 and result.stderr:find "shared librar" then return nil end  -- the loader failed, before dockrun started
    assert.truthy(CODES[result.code], what)
    if result.code ~= 0 then assert.matches("dockrun: .*%w", result.stderr, what) end
    return result
  end

  it("ends with a message, however few file descriptors it may have", function()
    local enough = 0
    for count = 4, 30 do
      local list = commands()
      local result = check(("--nofile=%d"):format(count), list[1 + count % #list])
      if count < 10 then
        assert.equal(4, result.code, result.stderr)
        assert.matches("needs 8 more file descriptors", result.stderr, 1, true)
      end
      enough = enough + (result.code ~= 4 and 1 or 0)
    end
    assert.truthy(enough > 10)
  end)

  it("ends with a message, however little memory it may have", function()
    if uv.fs_stat(process.program .. "-oom") then return end  -- the sanitizers need more memory than any limit
    for mb = 20, 60, 2 do
      local list = commands()
      check(("--as=%d"):format(mb << 20), list[1 + mb // 2 % #list])
    end
  end)
end)
