-- Invalid documents in streams: each is an error that says so, and no caller waits for more.
local attempts = tonumber(os.getenv "DOCUMENTS") or 100
local dockrun = require "dockrun"
local endpoint = require "dockrun.driver.endpoint"
local engines = require "spec.faults.engine"
local images = require "dockrun.driver.image"
local jobs = require "spec.jobs"
local json = require "dockrun.core.json"
local options = require "dockrun.options"
local pl_dir = require "pl.dir"
local process = require "spec.process"
local random = require "spec.fuzz.random"
local servers = require "spec.server"
local states = require "spec.states"
local uv = require "luv"
local watch = require "dockrun.driver.events"
local tables = require "dockrun.util.tables"

local NOT_FOUND = '{"message":"No such image"}'

-- An engine that answers one kind of call with a stream of these lines, then sends nothing more; it has no image.
local function streaming(pattern, lines)
  return servers.engine(function(connection, request)
    if request.line:find(pattern) then
      connection:write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" .. table.concat(lines, "\n") .. "\n")
      connection:await_end()
      return false
    elseif request.line:find "/containers/json" then
      connection:answer "[]"
    elseif request.line:find "_ping" then
      connection:answer "OK"
    else
      connection:answer(NOT_FOUND, "404 Not Found", "Api-Version: 1.41\r\n")
    end
  end)
end

local function connect(server) return assert(endpoint.connect(options.new(), { endpoint = server.endpoint })) end

describe("a document of a pull", function()
  local state

  setup(function()
    states.begin()
    state = assert(states.open())
  end)

  teardown(function()
    state:close()
    states.finish()
  end)

  -- The results of two callers that want one image, from an engine with this pull stream: {image, err} each.
  local function pull(lines)
    local server <close> = streaming("/images/create", lines)
    local puller = images.new(connect(server), options.new(), state)
    local calls, outcomes = {}, {}
    for i = 1, 2 do
      calls[i] = dockrun.spawn(function()
        return { puller:ensure("127.0.0.1:1/x:1", { timeout = 60, progress = function(current, total)
          assert(current >= 0 and current <= total, "progress is from 0 to the total")
        end }) }
      end)
    end
    for i, call in ipairs(calls) do outcomes[i] = assert(call:await(20), table.concat(lines, "\n")) end
    return outcomes
  end

  for line, why in pairs {
    ['{"id":"a","progressDetail":5}'] = "progressDetail is a number, not a table",
    ['{"id":5}'] = "id is a number, not a string",
    ['{"error":5}'] = "error is a number, not a string",
    ['{"error":"x","errorDetail":"x"}'] = "errorDetail is a string, not a table",
    ['{"errorDetail":{"message":{}}}'] = "errorDetail.message is a table, not a string",
    ['{"id":"a","status":"Downloading","progressDetail":{"current":1e300,"total":1}}'] =
      "progressDetail.current is no whole number within 64 bits",
    ['{"id":"a","status":"Downloading","progressDetail":{"current":1,"total":"1"}}'] = "progressDetail.total is a string, not an integer",
    ['{"id":"a","status":{},"progressDetail":{}}'] = "status is a table, not a string",
  } do
    it("such as " .. line .. " is an error for all callers that wait, at once", function()
      for _, outcome in ipairs(pull { '{"status":"Pulling from x"}', line }) do
        assert.same({ nil, "protocol" }, { outcome[1], outcome[2].kind })
        assert.matches("a document of image_pull is not as it should be: " .. why, outcome[2].message, 1, true)
      end
    end)
  end

  it("that holds an error ends the pull, whatever its text", function()
    for line, why in pairs {
      ['{"error":""}'] = "", ['{"errorDetail":{"message":"gone"}}'] = "gone", ['{"errorDetail":{}}'] = "no reason given",
    } do
      for _, outcome in ipairs(pull { line }) do
        assert.same({ nil, "pull", "cannot pull 127.0.0.1:1/x:1: " .. why }, { outcome[1], outcome[2].kind, outcome[2].message })
      end
    end
  end)

  it("does not end a pull for all callers if it makes one caller's progress function fail", function()
    local server <close> = streaming("/images/create", {
      '{"id":"a","status":"Downloading","progressDetail":{"current":9223372036854775807,"total":9223372036854775807}}',
      '{"id":"b","status":"Downloading","progressDetail":{"current":-5,"total":9223372036854775807}}', '{"error":"the end"}',
    })
    local puller = images.new(connect(server), options.new(), state)
    local told = {}
    local other = dockrun.spawn(puller.ensure, puller, "127.0.0.1:1/y:1", { progress = function() error "mine" end })
    local _, err = puller:ensure("127.0.0.1:1/y:1", { progress = function(...) told[#told + 1] = { ... } end })
    assert.matches("the end", err.message)
    assert.matches("the end", select(2, other:await(20)).message)
    assert.same({ { 2.0 ^ 63, 2.0 ^ 63 }, { 2.0 ^ 63, 2.0 ^ 64 } }, told)
  end)

  -- ---- any document -----------------------------------------------------------------------------

  local junk = {
    0, -1, 0.5, 1e300, -1e300, 2.0 ^ 63, math.maxinteger, math.mininteger, "", "x", "..", "../../x", ("y"):rep(5000), true, false,
    json.null, json.array {}, {}, json.array { 1 }, { a = {} }, "\u{1b}[2J",
  }

  local samples = {
    pull = {
      { status = "Pulling fs layer", id = "a" }, { id = "a", status = "Downloading", progressDetail = { current = 1, total = 2 } },
      { status = "Status: Downloaded newer image" }, { error = "no", errorDetail = { message = "no" } }, { aux = { ID = "sha256:0" } },
    },
    events = {
      { Type = "container", Action = "die", Actor = { ID = "c", Attributes = { exitCode = "0" } }, timeNano = 1700000000000000001 },
      { Type = "container", Action = "health_status: healthy", Actor = { ID = "c", Attributes = {} }, timeNano = 1700000000000000002 },
    },
    stats = {
      { read = "2026-01-01T00:00:00Z", cpu_stats = { cpu_usage = { total_usage = 1 }, system_cpu_usage = 2, online_cpus = 2 },
        memory_stats = { usage = 1, limit = 2, stats = { cache = 1 } }, pids_stats = { current = 1 }, networks = {} },
    },
  }

  -- A document with no, one or a few mistakes.
  local function document(r, kind)
    local made = tables.copy_data(r:pick(samples[kind]))
    for _ = 1, r:int(0, 2) do
      local holder = made
      while true do
        local keys = tables.keys(holder)
        if #keys == 0 then break end
        local key = r:pick(keys)
        if type(holder[key]) ~= "table" or r:one_in(2) then
          holder[key] = tables.copy { r:pick(junk) }[1]
          break
        end
        holder = holder[key]
      end
    end
    if r:one_in(20) then return r:pick { "7", "[]", "{}", "null", '"x"', "{", "", " " } end
    return json.encode(made)
  end

  local function each_seed(what, fn)
    for seed = 1, attempts do
      local ok, why = pcall(fn, random.new(seed))
      if not ok then error(("%s, seed %d: %s"):format(what, seed, why), 0) end
    end
  end

  it("may be anything: both callers that wait are notified of its end", function()
    each_seed("pull", function(r)
      local lines = r:some(0, 4, function() return document(r, "pull") end)
      lines[#lines + 1] = '{"error":"the end"}'
      for _, outcome in ipairs(pull(lines)) do
        assert.is_nil(outcome[1])
        assert.truthy(outcome[2].kind == "protocol" or outcome[2].kind == "pull" or outcome[2].kind == "invalid", tostring(outcome[2]))
      end
    end)
  end)

  it("of events may be anything: the watch continues, and its listeners get actions only", function()
    each_seed("events", function(r)
      local server <close> = streaming("/events", r:some(1, 4, function() return document(r, "events") end))
      local watched = watch.new(connect(server), { interval = 60 })
      local _ <close> = setmetatable({}, { __close = function() watched:stop() end })
      local queue = watched:add "c"
      assert(watched:start())
      local first = queue:pop(20)
      repeat
        assert.equal("string", type(first.action))
        assert.is_true(first.attributes == nil or type(first.attributes) == "table")
        first = queue:pop(0)
      until not first
      assert.equal("waiting", watched.task:status())
    end)
  end)

  it("of stats may be anything: the reading has the right fields", function()
    each_seed("stats", function(r)
      local count = r:int(1, 4)
      local lines = {}
      for i = 1, count do lines[i] = document(r, "stats") end
      local server <close> = streaming("/stats", lines)
      local stream <close> = assert(connect(server):container_stats "c")
      local read = 0
      while read < count do
        local value, err = stream:read(0.1)
        if value == nil and (not err or err.kind == "timeout") then break end -- blank lines are no documents
        read = read + 1
        if value then
          assert.truthy(type(value.memory_stats or {}) == "table" and type((value.memory_stats or {}).usage or 0) == "number")
        else
          assert.equal("protocol", err.kind)
        end
      end
    end)
  end)
end)

describe("an id from the engine that is a path to elsewhere", function()
  local state_dir, job_file, file

  setup(function()
    state_dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-documents-XXXXXX"))
    job_file, file = jobs.write(jobs.text { name = "elsewhere", image = "busybox:1", command = "true" })
  end)

  teardown(function()
    local _ <close> = file
    pl_dir.rmtree(state_dir)
  end)

  local numbers = 0

  local function run(answers, ...)
    numbers = numbers + 1
    local e <close> = engines.start(answers)
    local dir = ("%s/%d"):format(state_dir, numbers)
    local words = { "--endpoint", e.endpoint, "--state-dir", dir, ... }
    return process.run(words)
  end

  local answer = engines.answer
  for what, case in pairs {
    ["of a list"] = { container_list = answer '[{"Id":"../../x"}]' },
    ["of a new container"] = { container_create = answer('{"Id":"../../x","Warnings":[]}', "201 Created") },
    ["of an image"] = { image_inspect = answer '{"Id":"../../x"}' },
    ["of a list, empty"] = { container_list = answer '[{"Id":""}]' },
    ["of a list, a blank"] = { container_list = answer '[{"Id":"a b"}]' },
    ["of a list, a slash"] = { container_list = answer '[{"Id":"/"}]' },
  } do
    it(what .. " is a protocol error", function()
      local result = run(case, "run", job_file)
      assert.equal(3, result.code, result.stderr)
      assert.matches("Id is no id", result.stderr, 1, true)
    end)
  end

  it("is one for each command that looks at containers", function()
    for _, words in ipairs {
      { "status" }, { "plan", job_file }, { "logs", "elsewhere" }, { "exec", "elsewhere", "--", "true" }, { "stop", "elsewhere" },
    } do
      local result = run({ container_list = answer '[{"Id":"../../x"}]' }, table.unpack(words))
      assert.equal(3, result.code, result.stderr)
      assert.matches("Id is no id", result.stderr, 1, true)
    end
  end)
end)
