local interpolate = require "dockrun.job.interpolate"

local function context()
  return {
    env = { NOMAD_IP = "10.0.0.1", NOMAD_PORT_http = "20001", LEVEL = "info", URL = "${env.SCHEME}://${NOMAD_IP}", SCHEME = "http" },
    attr = { ["kernel.name"] = "linux", ["cpu.numcores"] = 4 },
    node = { ["unique.name"] = "n1" },
    meta = { owner = "platform", greeting = "hi ${meta.owner}", ["a.b"] = "dotted" },
  }
end

local function fill(text, changes)
  local given = context()
  for key, value in pairs(changes or {}) do given[key] = value end
  local task, err = interpolate.task({ name = "t", config = { image = text } }, given)
  return task and task.config.image, err
end

describe("interpolation", function()
  for _, case in ipairs {
    { "${NOMAD_IP}:${NOMAD_PORT_http}", "10.0.0.1:20001" },
    { "${attr.kernel.name}/${attr.cpu.numcores}", "linux/4" },
    { "$attr.kernel.name", "linux" },
    { "on $attr.kernel.name.", "on linux." },
    { "${node.unique.name}", "n1" },
    { "${meta.owner}", "platform" },
    { '${meta["a.b"]} ${env["LEVEL"]}', "dotted info" },
    { "${env.LEVEL}", "info" },
    { "${LEVEL}", "info" },
    { "$NOMAD_IP:$NOMAD_PORT_http.", "10.0.0.1:20001." },
    { "$node.unique.name $meta.owner.", "n1 platform." },
    { "$NOMAD_PORT_htp $node.js $meta.txt $LEVEL", "$NOMAD_PORT_htp $node.js $meta.txt $LEVEL" },
    { "${env.URL}", "http://10.0.0.1" },
    { "${meta.greeting}", "hi platform" },
    { "plain $x $1 $$ ${ $", "plain $x $1 $$ ${ $" },
    { "$${HOME} $$attr.x", "${HOME} $attr.x" },
    { "", "" },
  } do
    local text, expected = table.unpack(case)
    it(("makes %q of %q"):format(expected, text), function() assert.equal(expected, assert(fill(text))) end)
  end

  it("reaches every string of a task, and leaves the task given as it was", function()
    local hook = function() end
    local task = {
      name = "t", driver = "docker", config = { image = "x:${meta.owner}", args = { "a", "${NOMAD_IP}" } }, env = { IP = "${NOMAD_IP}" },
      meta = { m = "${attr.kernel.name}" }, hooks = { started = hook }, kill_timeout = 5, kill_signal = "SIGTERM",
    }
    local filled = assert(interpolate.task(task, context()))
    assert.same({
      name = "t", driver = "docker", config = { image = "x:platform", args = { "a", "10.0.0.1" } }, env = { IP = "10.0.0.1" },
      meta = { m = "linux" }, hooks = { started = hook }, kill_timeout = 5, kill_signal = "SIGTERM",
    }, filled)
    assert.equal("${NOMAD_IP}", task.config.args[2])
  end)

  it("leaves constraints and what is not used as written", function()
    local task = { name = "t", constraints = { { attribute = "${attr.none}" } }, template = { { data = "${any}" } } }
    assert.same(task, assert(interpolate.task(task, context())))
  end)

  it("keeps a list a list", function()
    local json = require "dockrun.core.json"
    local filled = assert(interpolate.task({ name = "t", config = { args = json.array {} } }, context()))
    assert.is_true(json.is_array(filled.config.args))
  end)

  for _, case in ipairs {
    { "${attr.kernel.nam}", "unknown name '${attr.kernel.nam}'; did you mean '${attr.kernel.name}'?" },
    { "$attr.kernel.nam", "unknown name '${attr.kernel.nam}'; did you mean '${attr.kernel.name}'?" },
    { "${NOMAD_PORT_htp}", "unknown name '${NOMAD_PORT_htp}'; did you mean '${NOMAD_PORT_http}'?" },
    { "${HOME_OF_THE_USER}", "unknown name '${HOME_OF_THE_USER}'; write '$${HOME_OF_THE_USER}' for the text itself" },
    { "${env.A}", "'${env.A}' refers to itself", { env = { A = "${env.B}", B = "${env.A}" } } },
  } do
    local text, message, changes = table.unpack(case, 1, 3)
    it(("refuses %s, naming the key"):format(text), function()
      local value, err = fill(text, changes)
      assert.is_nil(value)
      assert.equal("spec", err.kind)
      assert.same({ { path = "task.t.config.image", message = message } }, err.list)
    end)
  end

  it("tells every unknown name at once, under the path that the caller gives", function()
    local given = context()
    given.path = "job.j.group.g.task.t"
    local _, err = interpolate.task({ name = "t", env = { A = "${x}" }, config = { args = { "", "${y}" } } }, given)
    assert.equal(2, #err.list)
    assert.equal("job.j.group.g.task.t.config.args[2]", err.list[1].path)
    assert.equal("job.j.group.g.task.t.env.A", err.list[2].path)
  end)

  it("stops names that multiply", function()
    local env = { E40 = "x" }
    for i = 1, 39 do env["E" .. i] = ("${env.E%d}"):format(i + 1):rep(2) end
    local _, err = fill("${env.E1}", { env = env })
    assert.truthy(err.message:find("makes a string of more than 1048576 bytes", 1, true))
    env.E40 = ""
    assert.equal("", (fill("${env.E1}", { env = env })))
  end)
end)
