-- scripts/demo.lua, which scripts/demo runs: the main job on a real engine, with nothing left afterwards.
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local process = require "spec.process"

describe("demo.lua", function()
  local engine, args

  setup(function()
    local endpoint = engines.shared().endpoint
    engine = assert(dockrun.connect { endpoint = endpoint })
    args = { "--endpoint", endpoint, "--state-dir", jobs.state_dir, "scripts/demo.lua" }
  end)

  local function assert_nothing_left()
    assert.same({}, jobs.containers(engine, "web"))
    assert.is_nil((engine:image_inspect "dockrun-demo:1"))
  end

  it("shows the mapped port, the limits, the hook's effect and the clean-up, on 80 columns", function()
    local result = process.run(args)
    assert.equal(0, result.code, result.stderr)
    for _, shown in ipairs {
      "http://127%.0%.0%.1:%d+/ answers: it is port 8080", "NOMAD_PORT_8080=%d", "memory +%S+ of 64%.0M\n", "cpu +500 shares",
      "processes +%d of 32\n", "label owner +platform\n", "exited +exit code 0\n", "containers left +0\n", "port %d+ +free again",
    } do assert.matches(shown, result.stdout) end
    for line in result.stdout:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
    assert_nothing_left()
  end)

  it("keeps an existing image of the same name", function()
    local id = engines.image({ endpoint = engine:endpoint() }, "dockrun-demo:1")
    local _ <close> = setmetatable({}, { __close = function() engine:image_remove "dockrun-demo:1" end })
    local result = process.run(args)
    assert.equal(0, result.code, result.stderr)
    assert.equal(id, assert(engine:image_inspect "dockrun-demo:1").Id)
    assert.same({}, jobs.containers(engine, "web"))
  end)

  it("is drawn by picture.lua, with its colours", function()
    local drawn = process.run({ "scripts/picture.lua", "a<b" }, { stdin = "\27[1;36m== R&D\27[0m > x\r\n\n  last" }).stdout
    assert.matches('<tspan font%-weight="bold" fill="#56d4dd">== R&amp;D</tspan>', drawn)
    assert.matches("<tspan> &gt; x</tspan></text>\n<text [^>]*><tspan>  last</tspan></text>\n</g>\n</svg>\n$", drawn)
    assert.matches('aria%-label="a&lt;b"', drawn)
  end)

  it("leaves nothing if it is interrupted", function()
    local child <close> = process.start(args)
    child:wait_for "started"
    child:kill "SIGINT"
    assert.equal(130, child:wait().code)
    assert_nothing_left()
  end)
end)
