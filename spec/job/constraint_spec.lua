local constraint = require "dockrun.job.constraint"
local dockrun = require "dockrun"
local load = require "dockrun.job.load"

describe("a constraint", function()
  local node = {
    attr = { ["kernel.name"] = "linux", ["cpu.numcores"] = 4, ["driver.docker.version"] = "20.10.24+dfsg1",
      ["driver.docker.runtimes"] = "runc, crun", letter = "é", lines = "a\n" },
    node = { ["unique.name"] = "here" },
  }

  local function job(text) return load.string(('return job "j" { meta = { tier = "gold" }, %s }'):format(text), "lua", "job.lua") end

  -- "path: message" of each that does not hold.
  local function failures(normalised, on)
    local lines = {}
    for i, one in ipairs(constraint.failures(normalised, on or node)) do lines[i] = one.path .. ": " .. one.message end
    return lines
  end

  local function check(text) return failures(assert(job(("constraint = { %s }, group 'g' {}"):format(text)))) end

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
    [[attribute = "$meta.tier", value = "gold"]],
    [[attribute = "$node.unique.name", value = "here"]],
    [[attribute = "$node.datacenter", operator = "!=", value = "ams1"]],
    [[attribute = "${attr.driver.docker.runtimes}", set_contains = "crun"]],
    [[attribute = "${attr.kernel.name}", operator = "is_set"]],
    [[attribute = "${attr.nothing}", operator = "is_not_set"]],
    [[attribute = "${attr.kernel.name}", operator = "is", value = "linux"]],
    [[attribute = "${attr.kernel.name}", operator = "not", value = "${node.unique.name}"]],
    [[attribute = "${attr.kernel.name}", operator = "==", value = "linux"]],
    [[attribute = "${attr.letter}", regexp = "^.$"]],
    [[distinct_hosts = true]],
    [[distinct_hosts = false]],
    [[distinct_property = "${attr.kernel.name}"]],
  } do
    it("holds: " .. text, function() assert.same({}, check(text)) end)
  end

  for text, message in pairs {
    [ [[attribute = "$attr.kernel.name", value = "windows"]] ] = "$attr.kernel.name is 'linux' on this host, but must be = 'windows'",
    [ [[attribute = "$node.datacenter", value = "ams1"]] ] = "$node.datacenter is unknown on this host, but must be = 'ams1'",
    [ [[attribute = "${attr.nothing}", value = "1"]] ] = "${attr.nothing} is unknown on this host, but must be = '1'",
    [ [[attribute = "${attr.cpu.numcores}", operator = "<", value = "4"]] ] = "'4' on this host, but must be < '4'",
    [ [[attribute = "${attr.driver.docker.version}", version = "~> 20.9.1"]] ] = "must be version '~> 20.9.1'",
    [ [[attribute = "${attr.driver.docker.runtimes}", operator = "set_contains", value = "runc,kata"]] ] = "must be set_contains",
    [ [[attribute = "${attr.kernel.name}", operator = "is_not_set"]] ] = "must be is_not_set",
    [ [[attribute = "${attr.kernel.name}", regexp = "^(x+x+)+y$"]] ] = "must be regexp",
    [ [[attribute = "${attr.lines}", regexp = "^a$"]] ] = "must be regexp",
    [ [[attribute = "${attr.kernel.name}", version = "> 1"]] ] = "(it is not a version)",
    [ [[attribute = "${attr.kernel.name}", regexp = "(${node.unique.name}"]] ] = "must be regexp '(here' (missing",
    [ [[attribute = "${attr.kernel.name}", operator = "!=", value = "${attr.nothing}"]] ] =
      "the value ${attr.nothing} is unknown on this host",
  } do
    it("does not hold, and says so: " .. text, function()
      local lines = check(text)
      assert.equal(1, #lines)
      assert.matches("job.j.constraint[1]: ", lines[1], 1, true)
      assert.matches(message, lines[1], 1, true)
    end)
  end

  it("does not take long over a pattern that never ends, and says so", function()
    local attr = { long = ("x"):rep(64) .. "y!" }
    local long = assert(job [[constraint = { attribute = "${attr.long}", regexp = "^(x+x+)+y$" }, group "g" {}]])
    local since = dockrun.now()
    assert.matches("the expression takes too many steps", failures(long, { attr = attr, node = {} })[1])
    assert.is_true(dockrun.now() - since < 60)  -- it would be years
  end)

  it("sees the meta of its own level, and of those around it", function()
    local of_all = [[constraint = { attribute = "${meta.tier}", value = "%s" }]]
    assert.same({}, failures(assert(job(([[
      %s, group "g" { %s, task "t" { config = { image = "x" }, meta = { tier = "iron" }, %s } },
      group "h" { meta = { tier = "tin" }, %s, task "t" { config = { image = "x" }, %s } }]]):format(of_all:format "gold",
        of_all:format "gold", of_all:format "iron", of_all:format "tin", of_all:format "tin")))))
  end)

  it("is told of every level at once, by its path", function()
    local paths = {}
    for i, line in ipairs(failures(assert(job [[
      constraint = { attribute = "${attr.a}", operator = "is_set" },
      group "g" {
        constraint = { attribute = "${attr.b}", operator = "is_set" },
        task "t" { config = { image = "x" }, constraint = { { attribute = "${attr.c}", operator = "is_set" } } },
      }]]))) do paths[i] = line:match "^[^:]+" end
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
