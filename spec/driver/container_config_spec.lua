-- Every option of `config`, read back from a real container. The effects are in cases.lua.
local agents = require "dockrun.agent"
local cases = require "spec.driver.cases"
local dockrun = require "dockrun"
local driver = require "dockrun.driver.docker"
local engines = require "spec.engine"
local eventually = require "spec.eventually"
local jobs = require "spec.jobs"
local load = require "dockrun.job.load"
local options = require "dockrun.options"
local process = require "spec.process"
local schema = require "dockrun.job.schema"
local uv = require "luv"

local TASK = "job.group.task."

-- The rows of the schema that a spec must show, by their paths, such as config.mount.volume_options.labels: each option
-- of `config` and `resources` that is more than a block of others, and all else of a task that is sent to the engine.
local function options_of_a_task()
  local paths, blocks = {}, {}
  for _, row in ipairs(schema.describe()) do
    local path = row.path:sub(1, #TASK) == TASK and not row.unused and row.path:sub(#TASK + 1)
    if path and (row.engine or path:find "^config%." or path:find "^resources%.") then
      paths[#paths + 1] = path
      blocks[path:match "^(.*)%." or ""] = true
    end
  end
  local leaves = {}
  for _, path in ipairs(paths) do
    if not blocks[path] then leaves[#leaves + 1] = path end
  end
  return leaves
end

-- Notes every path that a task says something of. A block's label is no part of it, but a key of the block.
local function note(value, prefix, noted)
  for key, item in pairs(value) do
    local path = prefix
    if key == "@DISK" then
      noted[prefix .. ".path"] = true
    elseif type(key) == "string" then
      path = (prefix == "" and "" or prefix .. ".") .. key
      noted[path] = true
    end
    if type(item) == "table" then note(item, path, noted) end
  end
end

local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

-- A value with its @WORDS filled in.
local function filled(value, words)
  if type(value) == "string" then return (value:gsub("@(%u[%u%d]*)", words)) end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do copy[filled(key, words)] = filled(item, words) end
  return copy
end

-- A disk of this host.
local function disk()
  for name in function(scan) return (uv.fs_scandir_next(scan)) end, uv.fs_scandir "/sys/block" do
    local stat = not name:find "^loop" and not name:find "^zram" and uv.fs_stat("/dev/" .. name)
    if stat and stat.type == "block" then return "/dev/" .. name end
  end
end

local function at(value, path)
  while path ~= "" and type(value) == "table" do
    local key, rest = path:match "^([^.]+)%.?(.*)$"
    value, path = value[key], rest
  end
  return value
end

local function title(case)
  local names = {}
  for _, list in ipairs { case.config or {}, case.resources or {}, case.task or {} } do
    for name in pairs(list) do names[#names + 1] = name end
  end
  table.sort(names)
  return #names > 0 and table.concat(names, ", ") or "what is left out"
end

describe("an option of a task", function()
  it("is read back from a container, or is named with the spec that shows it, or with the reason why none can", function()
    local shown, missing = {}, {}
    for _, case in ipairs(cases.cases) do
      if case.inspect or case.sh or case.check then
        note({ config = case.config, resources = case.resources }, "", shown)
        note(case.task or {}, "", shown)
      end
    end
    for _, case in ipairs(cases.maybe) do
      for _, path in ipairs(case.paths) do shown[path] = true end
    end
    for _, path in ipairs(options_of_a_task()) do
      if not (shown[path] or cases.elsewhere[path] or cases.silent[path]) then missing[#missing + 1] = path end
    end
    assert.same({}, missing)
  end)

  it("is named with a spec that there is", function()
    local known = {}
    for _, row in ipairs(schema.describe()) do known[row.path] = row.type end
    for path, spec in pairs(cases.elsewhere) do
      assert.not_nil(known[TASK .. path], path)
      assert.truthy(read(spec[1]):find(("it(%q"):format(spec[2]), 1, true), path)
    end
    for path in pairs(cases.silent) do assert.not_nil(known[TASK .. path], path) end
  end)

  it("has a type, a meaning, and the default that it names", function()
    for _, row in ipairs(schema.describe()) do
      assert.truthy(#row.type > 0 and #row.doc > 0, row.path)
      assert.is_false(row.required and row.default ~= nil, row.path)
    end
  end)
end)

describe("in a container,", function()
  local engine, agent, network, words, containers, created, started

  -- The job of all cases: a task for each container.
  local function job_of()
    local groups = {}
    for container, base in pairs(cases.containers) do
      local config = filled(base, words)
      local task = {
        driver = "docker", config = config, kill_timeout = "1s",
        resources = { cpu = 500, memory = 32, network = container == "plain" and { dynamic_ports = { "http" } } or nil },
      }
      for _, case in ipairs(cases.cases) do
        if case.in_ == container then
          for key, value in pairs(filled(case.config or {}, words)) do config[key] = value end
          for key, value in pairs(filled(case.resources or {}, words)) do task.resources[key] = value end
          for key, value in pairs(filled(case.task or {}, words)) do task[key] = value end
        end
      end
      groups[container] = { restart = { attempts = 0 }, task = { [container] = task } }
    end
    return { job = { [words.NAME] = { group = groups } } }
  end

  -- A network with a range of addresses that is free: what the engine would have taken by itself.
  local function make_network()
    local probe = assert(engine:network_create { body = { Name = words.NAME } })
    local range = assert(engine:network_inspect(probe.Id)).IPAM.Config[1].Subnet
    assert(engine:network_remove(probe.Id))
    local six = ("fd42:%x"):format(uv.hrtime() & 0x7fff | 0x1000)
    words.IPV4, words.IPV6 = range:gsub("%d+/%d+$", function(last) return math.tointeger(tonumber(last:match "^%d+")) + 9 end), six .. "::9"
    return assert(engine:network_create { body = {
      Name = words.NAME, EnableIPv6 = true, IPAM = { Config = { { Subnet = range }, { Subnet = six .. "::/64" } } },
    } })
  end

  -- Takes the image away from the engine, into the archive that `load` finds where a hook puts it.
  local function archive(image)
    local pieces, stream <close> = {}, assert(engine:image_save(image))
    for piece in stream do pieces[#pieces + 1] = piece end
    assert(engine:image_remove(image))
    return table.concat(pieces)
  end

  setup(function()
    local shared = engines.shared()
    words = { NAME = jobs.unique "config", HOSTNAME = uv.os_gethostname(), DISK = disk() }
    engine = assert(dockrun.connect { endpoint = shared.endpoint })
    engines.image(shared, "busybox:1")
    engines.image(shared, words.NAME .. ":1", { changes = { 'LABEL loaded="yes"', 'CMD ["false"]', "HEALTHCHECK CMD false" } })
    network = make_network()
    local image = archive(words.NAME .. ":1")
    local set = options.new()
    for option, value in pairs {
      ["docker.endpoint"] = shared.endpoint, state_dir = jobs.state_dir, ["docker.allow_privileged"] = true,
      ["docker.allow_caps"] = { "all" }, ["docker.volumes.enabled"] = true, ["docker.allowed_modes.ipc"] = { "host" },
      ["docker.allowed_modes.pid"] = { "host" }, ["docker.allowed_modes.uts"] = { "host" },
      ["docker.allowed_modes.userns"] = { "host" },
    } do assert(options.set(set, option, value)) end
    agent = assert(agents.new(set))
    agent.hooks:register("pull", function(task)
      if task.name ~= "image" then return end
      local root = ("%s/alloc/%s/alloc/data"):format(jobs.state_dir, task.alloc.id)
      local file <close> = assert(io.open(root .. "/image.tar", "wb"))
      file:write(image)
    end)
    agent.hooks:register("setup", function(task)
      if task.name == "plain" then
        uv.fs_mkdir(("%s/alloc/%s/plain/local/data"):format(jobs.state_dir, task.alloc.id), tonumber("777", 8))
      end
    end)
    local failure
    created, started = {}, {}
    agent.emitter:listen(function(event)
      if event.event == "created" then created[event.task] = event end
      if event.event:find "failed" and event.task ~= "made" then failure = failure or ("%s: %s"):format(event.task, event.message) end
    end)
    containers = {}
    for _, transition in ipairs { "created", "started" } do
      agent.hooks:register(transition, function(task, container)
        if (task.name == "made") ~= (transition == "created") then return end
        containers[task.name], started[task.name] = assert(engine:container_inspect(container.id)), container
      end)
    end
    require("spec.agent.agents").submit(agent, assert(load.string(dockrun.json.encode(job_of()), "json")))
    for container in pairs(cases.containers) do
      eventually(container .. " runs", function() return failure or containers[container] end)
      assert(containers[container], failure or container .. " does not come to run")
    end
  end)

  teardown(function()
    if agent then
      agent:stop_job()
      agent:close()
    end
    if network then engine:network_remove(network.Id) end
    engine:volume_remove(words.NAME)
  end)

  -- What a command prints in a container, without the last newline.
  local function output_of(id, command)
    local exec = assert(engine:exec_create(id, { body = { Cmd = { "sh", "-c", command }, AttachStdout = true, AttachStderr = true } }))
    local text, stream <close> = {}, assert(engine:exec_start(exec.Id, { body = { Detach = false } }))
    while true do
      local piece = stream:read()
      if not piece then break end
      text[#text + 1] = piece
    end
    return (table.concat(text):gsub("\n$", ""))
  end

  for _, case in ipairs(cases.cases) do
    it(title(case) .. " is as the job has it", function()
      local container = containers[case.in_]
      for path, value in pairs(case.inspect or {}) do assert.same(filled(value, words), at(container, path), path) end
      if case.check then case.check(container, created[case.in_], started[case.in_]) end
      if not case.sh then return end
      local command, expected = table.unpack(filled(case.sh, words))
      eventually(expected, function()  -- its process may just have begun
        local printed = output_of(container.Id, command)
        return printed == expected or printed:find("^" .. expected .. "$"), printed
      end)
    end)
  end

  for _, case in ipairs(cases.maybe) do
    it(table.concat(case.paths, ", ") .. " is as the job has it, or the engine says that it has no such thing", function()
      local name = jobs.unique "maybe"
      local result = jobs.run(engines.shared().endpoint, jobs.text {
        name = name, image = "busybox:1", command = "true", config = case.config,
      }, { "--set", "docker.cleanup.container=false" })
      if not result.by.created then
        assert.truthy(result.by.failed.message:find(case.said, 1, true), result.by.failed.message)
        return
      end
      local container = assert(engine:container_inspect(result.by.created.container_id))
      assert(engine:container_remove(container.Id, { force = true }))
      for path, value in pairs(case.inspect) do assert.same(value, at(container, path), path) end
    end)
  end
end)

describe("a terminal", function()
  it("has its lines shown as it wrote them", function()
    local shared = engines.shared()
    engines.image(shared, "busybox:1")
    local path, file = jobs.write(jobs.text {
      name = jobs.unique "tty", image = "busybox:1", command = "test -t 1 && echo one && echo two", config = "tty = true",
    })
    local _ <close> = file
    local result = process.run { "run", "--endpoint", shared.endpoint, "--state-dir", jobs.state_dir, path }
    assert.same({ 0, "task | one\r\ntask | two\r\n" }, { result.code, result.stdout })
  end)
end)

describe("a MAC address", function()
  for version, top in pairs { ["1.41"] = true, ["1.43"] = true, ["1.44"] = false, ["1.55"] = false } do
    it("is the field that API " .. version .. " has", function()
      local sent
      local engine = {
        api = function() return version end,
        container_create = function(_, request)
          sent = request.body
          return { Id = "x", Warnings = dockrun.json.null }
        end,
      }
      local body = { NetworkingConfig = { EndpointsConfig = { bridge = { MacAddress = "02:68:b3:29:da:98" } } } }
      assert.equal("x", driver.create(engine, "name", body))
      assert.equal(top, sent.MacAddress == "02:68:b3:29:da:98")
    end)
  end
end)
