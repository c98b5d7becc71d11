-- How much a job file may cost, in all three languages: bytes, seconds, problems, allocations.
local process = require "spec.process"
local uv = require "luv"

local TASK = 'task "t" { driver = "docker"\n config { image = "x" } }'

-- One job of `count` allocations with more keys, as text of each language.
local writers = {
  nomad = function(count, keys)
    local lines = {}
    for i, key in ipairs(keys) do lines[i] = ("%s = 1\n"):format(key) end
    return ('job "x" { %s group "g" { count = %s\n %s } }'):format(table.concat(lines), count, TASK)
  end,
  json = function(count, keys)
    local lines = {}
    for i, key in ipairs(keys) do lines[i] = ('"%s":1,'):format(key) end
    return ('{"job":{"x":{%s "group":{"g":{"count":%s,"task":{"t":{"config":{"image":"x"}}}}}}}}'):format(table.concat(lines), count)
  end,
  lua = function(count, keys)
    local lines = {}
    for i, key in ipairs(keys) do lines[i] = ("%s = 1,"):format(key) end
    return ('return job "x" { %s group "g" { count = %s, task "t" { config = { image = "x" } } } }'):format(table.concat(lines), count)
  end,
}

local function unknown(count)
  local keys = {}
  for i = 1, count do keys[i] = ("unkey%d"):format(i) end
  return keys
end

local function with_ports(count)
  local ports, labels = {}, {}
  for i = 1, count do
    ports[i], labels[i] = ('port "p%d" { }\n'):format(i), ('"p%d"'):format(i)
  end
  return ('job "x" { group "g" { network {\n%s}\n task "t" { config { image = "x"\n ports = [%s] } } } }'):format(table.concat(ports),
    table.concat(labels, ","))
end

describe("a job file", function()
  local path
  after_each(function() if path then os.remove(path) end end)

  local function write(text, ending)
    path = ("%s/dockrun-limits-%d.%s"):format(uv.os_tmpdir(), uv.os_getpid(), ending)
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
    return path
  end

  local function validate(text, ending, options)
    local words = { "validate" }
    for _, option in ipairs(options or {}) do table.move({ "--set", option }, 1, 2, #words + 1, words) end
    words[#words + 1] = write(text, ending)
    return process.run(words)
  end

  for ending, writer in pairs(writers) do
    it(("has at most limits.allocs_per_job allocations, in .%s"):format(ending), function()
      for _, count in ipairs { "1001", "1000000000", "9223372036854775807" } do
        local result = validate(writer(count, {}), ending)
        assert.equal(2, result.code)
        assert.matches("job.x.group.g.count: brings the job to %d+ allocations, but limits.allocs_per_job is 1000", result.stderr)
      end
      assert.equal(0, validate(writer("1000", {}), ending).code)
      assert.equal(0, validate(writer("1001", {}), ending, { "limits.allocs_per_job=1001" }).code)
    end)

    it(("tells at most limits.problems problems, and how many more there are, in .%s"):format(ending), function()
      local result = validate(writer("1", unknown(3000)), ending, { "limits.problems=3" })
      assert.equal(2, result.code)
      assert.equal(3, select(2, result.stderr:gsub("unknown key", "")))
      assert.matches("and 2997 more problems; raise limits.problems to see them", result.stderr, 1, true)
    end)

    it(("has at most limits.job_bytes bytes, in .%s"):format(ending), function()
      local result = validate(writer("1", {}) .. (" "):rep(2000), ending, { "limits.job_bytes=1000" })
      assert.equal(2, result.code)
      assert.matches("a job file must have at most 1000 bytes (limits.job_bytes)", result.stderr, 1, true)
    end)

    it(("takes at most limits.job_seconds, in .%s"):format(ending), function()
      local result = validate(writer("1", unknown(2000)), ending, { "limits.job_seconds=0.01", "limits.problems=2000" })
      assert.equal(2, result.code)
      assert.matches("reading it took more than 0.01 s of processor time (limits.job_seconds)", result.stderr, 1, true)
    end)
  end

  it("counts the allocations of all groups together", function()
    local groups = {}
    for i = 1, 3 do groups[i] = ('group "g%d" { count = 400\n %s }'):format(i, TASK) end
    local result = validate(('job "x" { %s }'):format(table.concat(groups, "\n")), "nomad")
    assert.equal(2, result.code)
    assert.matches("job.x.group.g3.count: brings the job to 1200 allocations", result.stderr, 1, true)
  end)

  it("takes time in proportion to its ports", function()
    local result = validate(with_ports(20000), "nomad", { "limits.job_seconds=40" })  -- a tenth, and not minutes
    assert.equal(0, result.code, result.stderr)
  end)

  it("tells how many more warnings there are", function()
    local ports = {}
    for i = 1, 10 do ports[i] = ('port "p%d" { }\n'):format(i) end
    local text = 'job "x" { group "g" { network {\n%s}\n task "t" { config { image = "x"\n ports = [] } } } }'
    local result = validate(text:format(table.concat(ports)), "nomad", { "limits.problems=3" })
    assert.equal(0, result.code)
    assert.equal(4, select(2, result.stderr:gsub("warn:", "")))
    assert.matches("and 7 more warnings; raise limits.problems to see them", result.stderr, 1, true)
  end)

  it("is given up by a signal while its Lua runs", function()
    local source = [[
      local sandbox, uv = require "dockrun.sandbox.chunk", require "luv"
      sandbox.run("kill() while true do end", "x", { kill = function() uv.kill(uv.os_getpid(), "%s") end })]]
    for _, signal in ipairs { "sigint", "sigterm" } do
      local result = process.run({ "-e", source:format(signal) })
      assert.equal(130, result.code, result.stderr)
    end
  end)

  it("is given up by SIGINT while it is read", function()
    local words = { "validate", "--set", "limits.job_seconds=1000", write(with_ports(120000), "nomad") }
    local child <close> = process.start(words)
    pcall(child.wait, child, 2)  -- it says nothing until it is done
    child:kill "SIGINT"
    local result = child:wait()
    assert.truthy(result.code == 130 or result.signal == "SIGINT", result.stderr)  -- the latter if it had not begun
  end)
end)
