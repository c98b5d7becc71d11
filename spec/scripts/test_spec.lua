-- scripts/test, on specs made for it: its last line is right, and nothing outlives it.
local jobs = require "spec.jobs"
local process = require "spec.process"
local uv = require "luv"

local preset = process.program:match "build/(%w+)/dockrun$"

describe("scripts/test", function()
  local path

  after_each(function()
    if path then os.remove(path) end
    path = nil
  end)

  -- The arguments that run a spec with this text on the build under test.
  local function spec(text)
    path = jobs.write(text, "_spec.lua")
    return { preset, path }
  end

  local function run(text) return process.run(spec(text), { program = "scripts/test", timeout = 600 }) end

  for _, case in ipairs {
    { "that all passed", 'it("is", function() end)', 0, "1 passed, 0 failed" },
    { "that one failed", 'it("is", function() end) it("is not", function() assert(false) end)', 1, "1 passed, 1 failed" },
    { "that one is pending", 'pending "later" it("is", function() end)', 0, "1 passed, 0 failed, 1 skipped" },
    { "that a spec cannot be read", 'it("is", function()', 1, "0 passed, 1 failed" },
    { "that the specs died", 'it("dies", function() require("luv").kill(require("luv").os_getpid(), "sigkill") end)', 1,
      "0 passed, 1 failed" },
  } do
    local what, text, code, last = table.unpack(case)
    it("says on its last line " .. what, function()
      local result = run(text)
      assert.equal(last, result.stdout:match "([^\n]*)\n$")
      assert.equal(code, result.code)
    end)
  end

  it("ends the engine of its specs, and every other process, if it is ended", function()
    local child <close> = process.start(spec [[
      it("waits", function()
        local e = require("spec.engine").start()
        print(("engine %d in %s"):format(e.process:get_pid(), e.dir))
        io.stdout:flush()
        require("dockrun").sleep(600)
      end)]], { program = "scripts/test", timeout = 600 })
    local engine, dir = child:wait_for "engine (%d+) in ([^\n]+)\n"
    assert.is_truthy(uv.fs_stat("/sys/class/net/dockrun" .. engine))
    child:kill "SIGTERM"
    local result = child:wait()
    assert.equal(143, result.code)
    assert.equal("0 passed, 1 failed", result.stdout:match "([^\n]*)\n$")
    for _, trace in ipairs { dir, dir:match "^(.*)/", "/sys/class/net/dockrun" .. engine, ("/proc/%s/exe"):format(engine) } do
      assert.is_nil((uv.fs_stat(trace)), trace)
    end
  end)

  it("refuses unknown arguments", function()
    local result = process.run({ "everything" }, { program = "scripts/test" })
    assert.equal(2, result.code)
    assert.matches("usage: scripts/test", result.stderr)
  end)
end)
