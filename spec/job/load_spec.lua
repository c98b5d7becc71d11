local json = require "dockrun.core.json"
local load = require "dockrun.job.load"

-- The job of a task's body, in Lua.
local function with_task(body) return ('return job "j" { group "g" { task "t" { %s } } }'):format(body) end

local function lua(text, opts) return load.string(text, "lua", "job.lua", opts) end

local function task_of(body)
  local job = assert(lua(with_task(body)))
  return job.groups[1].tasks[1], job
end

local function error_at(path, err)
  for _, problem in ipairs(err.list) do
    if problem.path == path then return problem.message end
  end
end

describe("a job's defaults", function()
  it("are a service of one, with 100 MHz, 300 MB, the bridge and no ports", function()
    local task, job = task_of "config = { image = 'redis' }"
    assert.equal("service", job.type)
    assert.equal(1, job.groups[1].count)
    assert.equal("docker", task.driver)
    assert.same({ "redis", "bridge" }, { task.config.image, task.config.network_mode })
    assert.same({ cpu = 100, memory = 300, network = { dynamic_ports = {}, reserved_ports = {}, ports = {} } }, task.resources)
    assert.same({ nil, 5 }, { task.kill_signal, task.kill_timeout })
    assert.same({ attempts = 2, interval = 1800, delay = 15, mode = "fail" }, job.groups[1].restart)
    assert.same(job.groups[1].restart, task.restart)
  end)

  it("belong to each job alone", function()
    task_of("config = { image = 'redis' }").env.LEFT = "over"
    assert.same({}, task_of("config = { image = 'redis' }").env)
  end)

  it("print empty lists as lists and empty maps as maps", function()
    local text = json.encode(select(2, task_of "config = { image = 'redis' }"))
    for _, list in ipairs { "constraints", "ports", "dynamic_ports", "warnings" } do
      assert.truthy(text:find(('"%s":[]'):format(list), 1, true), list)
    end
    for _, map in ipairs { "env", "meta", "hooks" } do assert.truthy(text:find(('"%s":{}'):format(map), 1, true), map) end
  end)
end)

describe("resources", function()
  for _, key in ipairs { "cpu", "memory" } do
    for _, value in ipairs { "0", "-1", "0.5", "'0'", "'many'", "{}", "true", "0/0", "1/0" } do
      it(("refuse %s = %s"):format(key, value), function()
        local job, err = lua(with_task(("config = { image = 'x' }, resources = { %s = %s }"):format(key, value)))
        assert.is_nil(job)
        assert.equal(1, #err.list)
        assert.truthy(error_at("job.j.group.g.task.t.resources." .. key, err))
      end)
    end
  end

  it("take quoted and floating whole numbers", function()
    local task = task_of "config = { image = 'x' }, resources = { cpu = '250', memory = 64.0, network = { mbits = '100' } }"
    assert.same({ 250, 64, 100 }, { task.resources.cpu, task.resources.memory, task.resources.network.mbits })
    assert.equal("integer", math.type(task.resources.memory))
  end)

  it("refuse more memory than can be counted in bytes", function()
    assert.is_nil((lua(with_task "config = { image = 'x' }, resources = { memory = 1 << 43 }")))
  end)
end)

describe("a task's command", function()
  for _, case in ipairs {
    { "is split on blanks where there are no args", "command = ' redis-server  --save x '", "redis-server", { "--save", "x" } },
    { "stays whole beside args", "command = 'my prog', args = { 'a b' }", "my prog", { "a b" } },
    { "stays whole beside an empty list of args", "command = 'my prog', args = {}", "my prog", {} },
    { "loses blanks around it", "command = ' sh '", "sh", nil },
    { "takes numbers as args", "command = 'sleep', args = { 60, 0.5, true }", "sleep", { "60", "0.5", "true" } },
  } do
    local what, config, command, args = table.unpack(case, 1, 4)
    it(what, function()
      local task = task_of(("config = { image = 'x', %s }"):format(config))
      assert.equal(command, task.config.command)
      assert.same(args, task.config.args)
    end)
  end

  it("is needed for args, which are else ignored with a warning", function()
    local task, job = task_of "config = { image = 'x', args = { 'a' } }"
    assert.is_nil(task.config.args)
    assert.same({ "job.j.group.g.task.t.config.args: ignored, because there is no command" }, job.warnings)
  end)
end)

describe("network_mode", function()
  for _, mode in ipairs { "default", "bridge", "host", "none", "my-net_1.x" } do
    it("may be " .. mode, function()
      assert.equal(mode, task_of(("config = { image = 'x', network_mode = %q }"):format(mode)).config.network_mode)
    end)
  end

  for _, mode in ipairs { "container:web", "", "two words" } do
    it(("is refused as %q"):format(mode), function()
      local _, err = lua(with_task(("config = { image = 'x', network_mode = %q }"):format(mode)))
      assert.truthy(error_at("job.j.group.g.task.t.config.network_mode", err):find(mode, 1, true))
    end)
  end
end)

describe("an error", function()
  it("names the key, its place and what was meant", function()
    local job, err = lua(with_task "config = { imgae = 'x', image = 'x' }")
    assert.is_nil(job)
    assert.same({ {
      file = "job.lua", path = "job.j.group.g.task.t.config.imgae", message = "unknown key 'imgae'; did you mean 'image'?",
    } }, err.list)
    assert.equal("job.lua: job.j.group.g.task.t.config.imgae: unknown key 'imgae'; did you mean 'image'?", tostring(err))
    assert.equal(err.message, tostring(err))
  end)

  it("lists the known keys where none is near", function()
    local _, err = lua(with_task "config = { image = 'x', zzzzzzzzzz = 1 }")
    assert.truthy(err.message:find("known: image, image_pull_timeout, force_pull, load", 1, true))
  end)

  it("comes with all others", function()
    local _, err = lua [[return job "j" {
      typ = 1, group "g" { count = "x", task "t" { driver = "exec", config = {}, resources = { cpu = 0 } } } }]]
    local paths = {}
    for i, problem in ipairs(err.list) do paths[i] = problem.path end
    assert.same({
      "job.j.typ", "job.j.group.g.count", "job.j.group.g.task.t.driver", "job.j.group.g.task.t.config.image",
      "job.j.group.g.task.t.resources.cpu",
    }, paths)
  end)

  it("of a driver says that there is only docker", function()
    local _, err = lua(with_task "driver = 'raw_exec', config = { image = 'x' }")
    assert.equal("driver 'raw_exec' is not supported; the only one is 'docker'", error_at("job.j.group.g.task.t.driver", err))
  end)

  it("is short, however long what is wrong is, and whole to its last character", function()
    for _, text in ipairs { "error(('é'):rep(300000))", "return job 'j' { [('é'):rep(300000)] = 1 }" } do
      local _, err = lua(text)
      assert.is_true(#tostring(err) < 8000)
      assert.truthy(utf8.len(tostring(err)))
      assert.truthy(tostring(err):find("é…", 1, true))
    end
  end)

  it("has the line where Lua stopped", function()
    for _, text in ipairs { "\n\nreturn job 'x' { = }", "\n\nlocal x = nil + 1", "\n\nerror 'no'", "\n\nerror { code = 1 }" } do
      local _, err = lua(text)
      assert.equal(3, err.list[1].line)
      assert.equal("job.lua", err.list[1].file)
      assert.truthy(err.message:find("^job%.lua:3: "))
    end
  end)

  it("has the line and the column where JSON stopped", function()
    local _, err = load.string('{\n  "job": [1,\n  oops]\n}', "json", "job.json")
    assert.same({ 3, 3 }, { err.list[1].line, err.list[1].column })
    assert.truthy(err.message:find("^job%.json:3:3: not JSON: "))
  end)

  it("has a line and a column too where the text begins as UTF-16 would", function()
    for column, text in ipairs { '\0{"job": {} }', '{\0"job": {} }' } do
      local _, err = load.string(text, "json", "job.json")
      assert.truthy(err.message:find(("^job%%.json:1:%d: not JSON: "):format(column)), err.message)
    end
  end)

  it("has the line and the column of what JSON says wrongly", function()
    local _, err = load.string('{"job": { "é": {\n  "group": [{ "g": { "count": 1.5 } }, 7],\n "\\u0074ype": "x" } } }', "json", "job.json")
    local places = {}
    for i, problem in ipairs(err.list) do places[i] = ("%d:%d %s"):format(problem.line, problem.column, problem.path) end
    assert.same({ "1:11 job.é.name", "3:2 job.é.type", "2:22 job.é.group.g.count", "2:40 job.é.group.?" }, places)
  end)

  it("has no place where Nomad's own form is another tree than the text", function()
    local _, err = load.string('{ "Job": { "ID": "x", "Priority": 5, "TaskGroups": [{ "Name": "g", "Count": -1 }] } }', "json", "job.json")
    assert.equal("job.json: job.x.group.g.count: must be at least 0, got -1", tostring(err))
  end)

  it("tells what is twice in JSON, and nothing that only looks so", function()
    for text, twice in pairs {
      ['{ "job": { "j": { "meta": { "a": "b\\":", "b": ":\\"", "c": null, "d": "\\\\" } } } }'] = false,
      ['{ "job": { "j": { "meta": { "a": [], "b": {}, "c": [null, { "a": null }] } } } }'] = false,
      ['{ "job": { "j": { "meta": { "a": 1, "b" : 2, "\\u0061" : 3 } } } }'] = true,
      ['{ "job": { "j": { "meta": { "a": 1, "a": null } } } }'] = true,
    } do
      local _, err = load.string(text, "json", "job.json")
      assert.equal(twice, err ~= nil and tostring(err):find "set twice" ~= nil, text)
    end
  end)

  it("has the place that a reader knows, or the nearest around it", function()
    local problems = require "dockrun.job.diagnostics"
    local normalise = require "dockrun.job.normalise"
    local task = { config = { imgae = "x" } }
    local raw = { job = { j = { task = { t = task } } } }
    local function locate(holder, key)
      if holder == task.config and key == "imgae" then return 7, 9 end
      if holder == task and key == "config" then return 6, 5 end
    end
    local found = problems.new "job.hcl"
    assert.is_nil(normalise.job(raw, found, locate))
    assert.equal("job.hcl:7:9: job.j.task.t.config.imgae: unknown key 'imgae'; did you mean 'image'?\n"
      .. "job.hcl:6:5: job.j.task.t.config.image: is required: image reference; no tag means latest", tostring(found:error()))
  end)
end)

describe("hooks", function()
  it("are functions of a Lua file that find the runtime as `dockrun`, but not while the file is read", function()
    local runtime = { answer = function() return 42 end }
    local text = with_task "config = { image = 'x' }, hooks = { started = function() return dockrun.answer() end }"
    local job = assert(lua(text, { runtime = runtime }))
    assert.equal(42, job.groups[1].tasks[1].hooks.started())
    local _, err = lua("dockrun.answer()" .. text, { runtime = runtime })
    assert.truthy(err.message:find("not while the file is read", 1, true))
  end)

  it("find no `dockrun` where there is none", function()
    local task = task_of "config = { image = 'x' }, hooks = { started = function() return dockrun end }"
    assert.is_nil(task.hooks.started())
  end)

  it("are refused in JSON, but for none at all", function()
    local text = '{"job":{"j":{"hooks":%s,"task":{"t":{"config":{"image":"x"}}}}}}'
    assert.truthy(load.string(text:format "{}", "json"))
    local _, err = load.string(text:format '{"started":"print(1)"}', "json")
    assert.truthy(error_at("job.j.hooks.started", err):find("only a .lua job file can have hooks", 1, true))
  end)
end)

describe("load", function()
  it("gives a Lua file its variables, and keeps the caller's own", function()
    local vars = { tag = "7", list = { "a" } }
    local job = assert(lua([[var.list[1] = "b"; return job "j" { task "t" {
      config = { image = "redis:" .. var.tag .. (var.none or "") } } }]], { vars = vars }))
    assert.equal("redis:7", job.groups[1].tasks[1].config.image)
    assert.same({ "a" }, vars.list)
  end)

  it("reads a file whose first line is for the shell, and counts that line", function()
    local _, err = lua "#!/usr/bin/env dockrun\nreturn nothing"
    assert.equal(2, err.list[1].line)
  end)

  it("reads a file by its ending", function()
    local job = assert(load.file "spec/job/corpus/cache.json")
    assert.equal("cache", job.name)
  end)

  for _, case in ipairs {
    { "/nowhere/job.lua", "cannot read the job: /nowhere/job.lua: No such file or directory" },
    { "job.yaml", "job.yaml: not a job file: expected an ending of .hcl, .json, .lua, .nomad" },
    { "job", "job: not a job file: expected an ending of .hcl, .json, .lua, .nomad" },
  } do
    local path, message = table.unpack(case)
    it("refuses " .. path, function()
      local job, err = load.file(path)
      assert.is_nil(job)
      assert.equal("spec", err.kind)
      assert.equal(message, err.message)
    end)
  end

  it("refuses a file that is too long", function()
    local _, err = load.string((" "):rep((8 << 20) + 1), "json", "long.json")
    assert.equal("long.json: a job file must have at most 8388608 bytes (limits.job_bytes)", err.message)
  end)

  it("takes Nomad's keys that mean nothing on one host, keeps them, and says so once", function()
    local job = assert(lua [[return job "j" { datacenters = { "dc1" }, group "g" {
      task "a" { kind = "www", config = { image = "x" } }, task "b" { kind = "app", config = { image = "x" } } } }]])
    assert.same({ "dc1" }, job.datacenters)
    assert.equal("app", job.groups[1].tasks[2].kind)
    assert.same({
      "job.j.group.g.task.a.kind: known to Nomad; not used on a single host",
      "job.j.datacenters: known to Nomad; not used on a single host",
    }, job.warnings)
  end)

  it("gives a job or errors for whatever JSON it is handed", function()
    local state = 1
    local function random(n)  -- the same in every run: Numerical Recipes' generator, modulus 2^32
      state = (state * 1664525 + 1013904223) & 0xffffffff
      return (state >> 8) % n + 1
    end
    local file <close> = assert(io.open "spec/job/corpus/cache.json")
    local seed = assert(json.decode(file:read "a"))
    local junk = { 0, -1, 1.5, "", "x y", true, {}, { {} }, { "a" }, { a = 1 }, { name = {} }, { { { {} } } } }
    local function mutate(value)
      if random(20) == 1 then return junk[random(#junk)] end
      if type(value) ~= "table" then return value end
      local copy, keys = setmetatable({}, getmetatable(value)), {}
      for key in pairs(value) do keys[#keys + 1] = key end
      table.sort(keys)
      for _, key in ipairs(keys) do copy[key] = mutate(value[key]) end
      return copy
    end
    local read = { job = 0, err = 0 }
    for _ = 1, 500 do
      local job, err = load.string(json.encode(mutate(seed)), "json")
      if not job then assert.is_true(err.kind == "spec" and #err.list > 0) end
      local what = job and "job" or "err"
      read[what] = read[what] + 1
    end
    assert.is_true(read.job > 0 and read.err > 0)
  end)
end)

describe("a number where a string is wanted", function()
  local texts = { "18446744073709551615", "-18446744073709551617", "9007199254740993", "3.14159265358979312", "0.5", "-1.25", "12", "-7" }

  local function env_of(text, format)
    local job = assert(load.string(text, format, "job." .. format))
    return job.groups[1].tasks[1].env
  end

  it("keeps the digits that were written, in HCL and in JSON", function()
    local hcl, js, expected = {}, {}, {}
    for i, text in ipairs(texts) do
      hcl[i], js[i], expected["N" .. i] = ("N%d = %s"):format(i, text), ('"N%d": %s'):format(i, text), text
    end
    assert.same(expected, env_of(([[job "j" { group "g" { task "t" { driver = "docker"
      config { image = "x" }
      env { %s } } } }]]):format(table.concat(hcl, "\n")), "hcl"))
    assert.same(expected, env_of(('{"job":{"j":{"group":{"g":{"task":{"t":{"config":{"image":"x"},"env":{%s}}}}}}}}'):format(
      table.concat(js, ",")), "json"))
  end)

  it("is what Lua has of it, and an error where Lua has rounded it", function()
    local task = task_of "config = { image = 'x' }, env = { A = 0.1 + 0.2, B = 2 ^ 53, C = 9007199254740993, D = 1 / 3, E = 5.0 }"
    assert.same({ A = "0.30000000000000004", B = "9007199254740992", C = "9007199254740993", D = "0.3333333333333333", E = "5" }, task.env)
    for _, number in ipairs { "18446744073709551615", "1e300", "1 / 0", "0 / 0" } do
      local job, err = lua(with_task(("config = { image = 'x' }, env = { A = %s }"):format(number)))
      assert.is_nil(job)
      assert.matches("must be a string, got a number that Lua rounds to .*; put it in quotes", error_at("job.j.group.g.task.t.env.A", err))
    end
  end)

  it("is a number where one is wanted, however it is written", function()
    for format, text in pairs {
      hcl = [[job "j" { group "g" { task "t" { config { image = "x" }
        kill_timeout = 1.50
        resources { memory = 64.0 } } } }]],
      json = '{"job":{"j":{"group":{"g":{"task":{"t":{"config":{"image":"x"},"kill_timeout":1.50,"resources":{"memory":64.0}}}}}}}}',
    } do
      local task = assert(load.string(text, format, "job." .. format)).groups[1].tasks[1]
      assert.same({ 1.5, 64 }, { task.kill_timeout, task.resources.memory })
    end
  end)
end)
