local constraint = require "dockrun.job.constraint"
local load = require "dockrun.job.load"

describe("a constraint", function()
  local node = {
    attr = { ["kernel.name"] = "linux", ["cpu.numcores"] = 4, ["driver.docker.version"] = "20.10.24+dfsg1",
      ["driver.docker.runtimes"] = "runc, crun" },
    node = { ["unique.name"] = "here" },
  }

  local function job(text) return load.string(('return job "j" { meta = { tier = "gold" }, %s }'):format(text), "lua", "job.lua") end

  local function check(text) return constraint.check(assert(job(("constraint = { %s }, group 'g' {}"):format(text))), node) end

  for _, text in ipairs {
    [[attribute = "$attr.kernel.name", value = "linux"]],
    [[attribute = "${attr.kernel.name}", operator = "!=", value = "darwin"]],
    [[attribute = "${attr.nothing}", operator = "!=", value = "darwin"]],
    [[attribute = "${attr.cpu.numcores}", operator = ">", value = "3"]],
    [[attribute = "${attr.cpu.numcores}", operator = "<", value = "10"]],
    [[attribute = "${attr.kernel.name}", operator = ">=", value = "lin"]],
    [[attribute = "${node.unique.name}", regexp = "^h.re$"]],
    [[attribute = "${attr.driver.docker.version}", version = ">= 20.10, < 21"]],
    [[attribute = "${attr.driver.docker.version}", operator = "semver", value = "> 20.10.0"]],
    [[attribute = "${attr.driver.docker.runtimes}", operator = "set_contains", value = "crun,runc"]],
    [[attribute = "${attr.driver.docker.runtimes}", operator = "set_contains_any", value = "kata,runc"]],
    [[attribute = "${meta.tier}", value = "gold"]],
    [[attribute = "${attr.kernel.name}", operator = "is_set"]],
    [[attribute = "${attr.nothing}", operator = "is_not_set"]],
    [[distinct_hosts = true]],
    [[distinct_property = "${attr.kernel.name}"]],
  } do
    it("holds: " .. text, function() assert.is_true(check(text)) end)
  end

  for text, message in pairs {
    [ [[attribute = "$attr.kernel.name", value = "windows"]] ] = "$attr.kernel.name is 'linux' here, and must be = 'windows'",
    [ [[attribute = "${attr.nothing}", value = "1"]] ] = "${attr.nothing} is not known here, and must be = '1'",
    [ [[attribute = "${attr.cpu.numcores}", operator = "<", value = "4"]] ] = "'4' here, and must be < '4'",
    [ [[attribute = "${attr.driver.docker.version}", version = "~> 20.9.1"]] ] = "must be version '~> 20.9.1'",
    [ [[attribute = "${attr.driver.docker.runtimes}", operator = "set_contains", value = "runc,kata"]] ] = "must be set_contains",
    [ [[attribute = "${attr.kernel.name}", operator = "is_not_set"]] ] = "must be is_not_set",
    [ [[attribute = "${attr.kernel.name}", regexp = "^(x+x+)+y$"]] ] = "must be regexp",
  } do
    it("does not hold, and says so: " .. text, function()
      local ok, err = check(text)
      assert.is_nil(ok)
      assert.equal("constraint", err.kind)
      assert.matches("job.j.constraint[1]: ", err.message, 1, true)
      assert.matches(message, err.message, 1, true)
    end)
  end

  it("does not take long over a pattern that never ends", function()
    node.attr.long = ("x"):rep(64)
    assert.is_nil((check [[attribute = "${attr.long}", regexp = "^(x+x+)+y$"]]))
  end)

  it("is told of every level at once, by its path", function()
    local _, err = constraint.check(assert(job [[
      constraint = { attribute = "${attr.a}", operator = "is_set" },
      group "g" {
        constraint = { attribute = "${attr.b}", operator = "is_set" },
        task "t" { config = { image = "x" }, constraint = { { attribute = "${attr.c}", operator = "is_set" } } },
      }]]), node)
    local paths = {}
    for line in err.message:gmatch "[^\n]+" do paths[#paths + 1] = line:match "^[^:]+" end
    assert.same({ "job.j.constraint[1]", "job.j.group.g.constraint[1]", "job.j.group.g.task.t.constraint[1]" }, paths)
  end)

  for text, message in pairs {
    [ [[attribute = "x", regexp = "("]] ] = "'(' is not a regular expression",
    [ [[attribute = "x", version = "newest"]] ] = "'newest' is not a version",
    [ [[attribute = "x", operator = "is like", value = "y"]] ] = "must be one of",
    [ [[value = "y"]] ] = "attribute: is required",
  } do
    it("is refused as it is written: " .. text, function()
      local _, err = job(("constraint = { %s }, group 'g' {}"):format(text))
      assert.matches("job.j.constraint[1]", err.message, 1, true)
      assert.matches(message, err.message, 1, true)
    end)
  end
end)
