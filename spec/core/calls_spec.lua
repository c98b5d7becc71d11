-- Every row of the table of operations, called for real: what the engine answers, and that the request is what the
-- engine's own specification asks for.
local dockrun = require "dockrun"
local operations = require "dockrun.core.operations"
local engines = require "spec.engine"
local openapi = require "spec.driver.openapi"
local servers = require "spec.server"

local shared, engine, registry
local calls = {} -- of the example that runs, kept

-- No two copies of this spec on one engine meet.
local LABEL = ("dockrun.spec=%d-%d"):format(require "luv".os_getpid(), require "luv".hrtime())
local KEY, VALUE = LABEL:match "^(.-)=(.*)$"
local NAME = "calls-" .. VALUE
local LABELS = { [KEY] = VALUE }
local FILTER = { label = { LABEL } }

local function ok(value, err, ...)
  if not value then error(tostring(err), 2) end
  return value, err, ...
end

local function closing(fn) return setmetatable({}, { __close = fn }) end

-- A container that sleeps, or that runs `body.Cmd`; gone with its guard.
local function container(body, opts)
  body = body or {}
  body.Image, body.Labels, body.Cmd = "busybox:1", LABELS, body.Cmd or { "sleep", "600" }
  body.HostConfig = body.HostConfig or { NetworkMode = "none" }
  local id = ok(engine:container_create { name = opts and opts.name, body = body }).Id
  if not opts or opts.start ~= false then ok(engine:container_start(id)) end
  return id, closing(function() engine:container_remove(id, { force = true, v = true }) end)
end

-- All documents of a stream; none may be an error.
local function drain(stream)
  local documents <close> = ok(stream)
  local all = {}
  for document in documents do
    assert.is_nil(document.error)
    all[#all + 1] = document
  end
  return all
end

local function text_of(stream)
  local pieces <close> = ok(stream)
  local said = { stdout = "", stderr = "" }
  for piece, which in pieces do said[which or "stdout"] = said[which or "stdout"] .. piece end
  return said.stdout, said.stderr
end

-- A tar archive with one file (POSIX.1-1988).
local function tar(name, content)
  local head = name .. ("\0"):rep(100 - #name) .. ("%07o\0"):format(420) .. ("0000000\0"):rep(2) .. ("%011o\0"):format(#content)
    .. ("%011o\0"):format(0) .. "        0" .. ("\0"):rep(100) .. "ustar\00000" .. ("\0"):rep(247)
  local sum = 0
  for i = 1, 512 do sum = sum + head:byte(i) end
  head = head:sub(1, 148) .. ("%06o\0 "):format(sum) .. head:sub(157)
  return head .. content .. ("\0"):rep(-#content % 512) .. ("\0"):rep(1024)
end

local function image(tag) return registry .. "/" .. NAME .. ":" .. tag end
local function without_image(...)
  for _, name in ipairs { ... } do engine:image_remove(name, { force = true }) end
end

-- ---- the calls: which rows, and an example of them -------------------------------------------------

local examples = {
  { "system_ping version info df", function()
    assert.same({ "OK", 200 }, { ok(engine:system_ping()) })
    local version = ok(engine:version())
    assert.equal(version.ApiVersion, engine:api())
    assert.equal("linux", ok(engine:info()).OSType)
    assert.is_table(ok(engine:df()).Images)
  end },

  { "events", function()
    local before = os.time() - 1
    local stream <close> = ok(engine:events { filters = { label = { LABEL }, event = { "create", "start", "die" } }, since = before })
    local id <const>, guard <close> = container { Cmd = { "true" } }
    assert.truthy(guard)
    for _, action in ipairs { "create", "start", "die" } do
      local event, text = stream:read(60)
      assert.same({ action, id, "integer" }, { event.Action, event.Actor.ID, math.type(event.timeNano) })
      assert.matches('"timeNano":' .. event.timeNano, text, 1, true)
    end
    local ended = 0
    for _ in ok(engine:events { filters = FILTER, since = before, ["until"] = os.time() + 1 }) do ended = ended + 1 end
    assert.is_true(ended >= 3)
  end },

  { "auth", function()
    local said = ok(engine:auth { body = { username = "u", password = "p", serveraddress = "http://" .. registry } })
    assert.equal("Login Succeeded", said.Status)
    local refused, err = engine:auth { body = { username = "u", password = "p", serveraddress = "http://127.0.0.1:1" } }
    assert.is_nil(refused)
    assert.same({ "engine", 500 }, { err.kind, err.status })
  end },

  { "container_create container_list container_inspect container_start container_stop container_remove", function()
    local id, guard <close> = container(nil, { name = NAME .. "-life", start = false })
    assert.truthy(guard)
    local seen = ok(engine:container_inspect(NAME .. "-life", { size = true }))
    assert.same({ id, "created", "integer" }, { seen.Id, seen.State.Status, math.type(seen.SizeRootFs) })
    assert.same({}, ok(engine:container_list { filters = FILTER }))
    assert.same({ true, 204 }, { engine:container_start(id) })
    assert.same({ true, 304 }, { engine:container_start(id) })
    local listed = ok(engine:container_list { all = true, limit = 5, size = true, filters = FILTER })
    assert.same({ 1, id, "running" }, { #listed, listed[1].Id, listed[1].State })
    assert.same({ true, 204 }, { engine:container_stop(id, { t = 0 }) })
    assert.same({ true, 204 }, { engine:container_remove(id, { v = true, force = false, link = false }) })
    local gone, err = engine:container_inspect(id)
    assert.is_nil(gone)
    assert.same({ "engine", 404, "No such container: " .. id }, { err.kind, err.status, err.message })
  end },

  { "container_restart container_kill container_wait", function()
    local id, guard <close> = container()
    assert.truthy(guard)
    local pid = ok(engine:container_inspect(id)).State.Pid
    ok(engine:container_restart(id, { t = 0 }))
    assert.not_equal(pid, ok(engine:container_inspect(id)).State.Pid)
    local waiting = dockrun.spawn(engine.container_wait, engine, id, { condition = "not-running" })
    assert.is_nil((waiting:await(0.05)))
    ok(engine:container_kill(id, { signal = "SIGKILL" }))
    assert.equal(137, waiting:await(120).StatusCode)
    local killed, err = engine:container_kill(id)
    assert.is_nil(killed)
    assert.equal(409, err.status)
  end },

  { "container_pause container_unpause container_update container_rename container_top", function()
    local id, guard <close> = container(nil, { name = NAME .. "-before" })
    assert.truthy(guard)
    ok(engine:container_pause(id))
    assert.is_true(ok(engine:container_inspect(id)).State.Paused)
    ok(engine:container_unpause(id))
    ok(engine:container_update(id, { body = { CpuShares = 512, Memory = 64 << 20, MemorySwap = 64 << 20 } }))
    ok(engine:container_rename(id, { name = NAME .. "-after" }))
    local seen = ok(engine:container_inspect(NAME .. "-after"))
    assert.same({ 512, 64 << 20 }, { seen.HostConfig.CpuShares, seen.HostConfig.Memory })
    local top = ok(engine:container_top(id, { ps_args = "-o pid,comm" }))
    assert.same({ "PID", "COMMAND" }, { top.Titles[1], top.Titles[2] })
    assert.equal("sleep", top.Processes[1][2])
  end },

  { "container_logs container_changes container_export", function()
    local id, guard <close> = container { Cmd = { "sh", "-c", "echo out; echo err >&2; echo more >/tmp/file" } }
    assert.truthy(guard)
    ok(engine:container_wait(id))
    local out, err = text_of(engine:container_logs(id, { stdout = true, stderr = true, follow = true }))
    assert.same({ "out\n", "err\n" }, { out, err })
    out = text_of(engine:container_logs(id, {
      stdout = true, timestamps = true, tail = "2", since = 0, ["until"] = os.time() + 60,
    }))
    assert.matches("^%d+%-%d+%-%d+T%S+Z out\n$", out)
    local changed = {}
    for _, change in ipairs(ok(engine:container_changes(id))) do changed[change.Path] = change.Kind end
    assert.equal(1, changed["/tmp/file"])
    assert.truthy(text_of(engine:container_export(id)):find("tmp/file", 1, true))
    local untouched <const>, other <close> = container(nil, { start = false })
    assert.truthy(other)
    assert.same({}, ok(engine:container_changes(untouched))) -- the engine says null
  end },

  { "container_stats", function()
    local id, guard <close> = container()
    assert.truthy(guard)
    local once = ok(engine:container_stats(id, { stream = false, ["one-shot"] = true }))
    assert.equal(id, once.id)
    local stream <close> = ok(engine:container_stats(id))
    for _ = 1, 2 do assert.is_true(stream:read(60).memory_stats.usage > 0) end
  end },

  { "container_attach container_resize", function()
    local id, guard <close> = container({ Cmd = { "sh", "-c", "read x; stty size" }, Tty = true, OpenStdin = true }, { start = false })
    assert.truthy(guard)
    local stream <close> = ok(engine:container_attach(id, { stream = true, stdin = true, stdout = true, stderr = true, tty = true }))
    ok(engine:container_start(id))
    ok(engine:container_resize(id, { h = 24, w = 99 }))
    stream:write "\n"
    assert.matches("24 99", text_of(stream))
  end },

  { "archive_put archive_head archive_get", function()
    local id, guard <close> = container()
    assert.truthy(guard)
    assert.same({ true, 200 }, { engine:archive_put(id, { path = "/tmp", body = tar("hello", "content"), noOverwriteDirNonDir = true }) })
    local stat = ok(engine:archive_head(id, { path = "/tmp/hello" }))
    assert.same({ "hello", 7, 420 }, { stat.name, stat.size, stat.mode })
    assert.truthy(text_of(engine:archive_get(id, { path = "/tmp/hello" })):find("content", 1, true))
    local target = ("/" .. ("l"):rep(200)):rep(17)
    local exec = ok(engine:exec_create(id, { body = { Cmd = { "ln", "-s", target, "/tmp/link" } } }))
    ok(engine:exec_start(exec.Id, { body = { Detach = true } }))
    repeat local seen = ok(engine:exec_inspect(exec.Id)) until not seen.Running
    assert.equal(target, ok(engine:archive_head(id, { path = "/tmp/link" })).linkTarget)
    local none, err = engine:archive_head(id, { path = "/absent" })
    assert.is_nil(none)
    assert.same({ "engine", 404 }, { err.kind, err.status })
  end },

  { "exec_create exec_start exec_inspect exec_resize", function()
    local id, guard <close> = container()
    assert.truthy(guard)
    local exec = ok(engine:exec_create(id, { body = {
      Cmd = { "sh", "-c", "read x; stty size; echo $A; pwd" }, AttachStdin = true, AttachStdout = true, AttachStderr = true, Tty = true,
      Env = { "A=b" }, WorkingDir = "/tmp", User = "nobody", Privileged = false,
    } }))
    local stream <close> = ok(engine:exec_start(exec.Id, { body = { Tty = true, Detach = false } }))
    assert.is_true(ok(engine:exec_inspect(exec.Id)).Running)
    ok(engine:exec_resize(exec.Id, { h = 11, w = 22 }))
    stream:write "\n"
    assert.matches("11 22%s+b%s+/tmp", text_of(stream))
  end },

  { "container_prune", function()
    local id, guard <close> = container({ Cmd = { "true" } })
    assert.truthy(guard)
    ok(engine:container_wait(id))
    assert.same({ id }, ok(engine:container_prune { filters = FILTER }).ContainersDeleted)
  end },

  { "image_list image_inspect image_history image_tag image_remove", function()
    local tag = NAME .. ":tagged"
    local guard <close> = closing(function() without_image(tag) end)
    assert.truthy(guard)
    assert.same({ true, 201 }, { engine:image_tag("busybox:1", { repo = NAME, tag = "tagged" }) })
    local seen = ok(engine:image_inspect(tag))
    local listed = ok(engine:image_list { all = false, digests = true, filters = { reference = { tag } } })
    assert.same({ 1, seen.Id }, { #listed, listed[1].Id })
    assert.is_true(#ok(engine:image_history(tag)) >= 1)
    assert.same({ { Untagged = tag } }, ok(engine:image_remove(tag, { force = false, noprune = true })))
  end },

  { "image_import image_save image_load image_prune", function()
    local tag = NAME .. ":imported"
    local guard <close> = closing(function() without_image(tag) end)
    assert.truthy(guard)
    local lines = drain(engine:image_import {
      fromSrc = "-", repo = NAME, tag = "imported", message = "made by a spec", changes = { "LABEL " .. LABEL, "CMD [\"x\"]" },
      body = tar("file", "in an image"),
    })
    local id = lines[#lines].status
    local seen = ok(engine:image_inspect(tag))
    assert.same({ id, VALUE, "made by a spec" }, { seen.Id, seen.Config.Labels[KEY], seen.Comment })
    local saved = text_of(engine:image_save(tag))
    ok(engine:image_remove(tag))
    local loaded = drain(engine:image_load { body = saved, quiet = true })
    assert.matches("Loaded image: " .. tag, loaded[#loaded].stream, 1, true)
    assert.equal(id, ok(engine:image_inspect(tag)).Id)
    local pruned = ok(engine:image_prune { filters = { label = { LABEL }, dangling = { "false" } } })
    assert.same({ Untagged = tag }, pruned.ImagesDeleted[1])
  end },

  { "image_push image_pull", function()
    local tag = image "pushed"
    local guard <close> = closing(function() without_image(tag) end)
    assert.truthy(guard)
    ok(engine:image_tag("busybox:1", { repo = tag:match "^(.*):", tag = "pushed" }))
    local auth = { username = "u", password = "p>?~", serveraddress = registry }
    local pushed = drain(engine:image_push(tag:match "^(.*):", { tag = "pushed", auth = auth }))
    assert.matches("^sha256:", pushed[#pushed].aux.Digest)
    ok(engine:image_remove(tag))
    local pulled = drain(engine:image_pull { fromImage = tag:match "^(.*):", tag = "pushed", platform = "linux", auth = auth })
    assert.matches("Downloaded newer image", pulled[#pulled].status)
    ok(engine:image_inspect(tag))
    local none, err = engine:image_pull { fromImage = tag:match "^(.*):", tag = "absent" }
    assert.is_nil(none)
    assert.same({ "engine", 404 }, { err.kind, err.status })
  end },

  { "image_search", function()
    local asked
    local index <close> = servers.start(function(connection)
      for request in function() return connection:request() end do
        asked = request.line:find "/search" and request.line or asked
        connection:answer(asked and '{"num_results":1,"results":[{"name":"found","star_count":7}]}' or "{}", nil,
          "X-Docker-Registry-Version: 1.0\r\nX-Docker-Registry-Standalone: true\r\nContent-Type: application/json\r\n")
      end
    end, { tcp = true })
    local found = ok(engine:image_search { term = index.endpoint:match "//(.*)" .. "/thing", limit = 3, filters = { stars = { "5" } } })
    assert.same({ "found", 7 }, { found[1].name:match "[^/]*$", found[1].star_count })
    assert.matches("q=thing", asked)
  end },

  { "network_list network_inspect network_create network_connect network_disconnect network_remove network_prune", function()
    local name = NAME .. "-net"
    local guard <close> = closing(function() engine:network_remove(name) end)
    assert.truthy(guard)
    local id = ok(engine:network_create { body = { Name = name, Driver = "bridge", Labels = LABELS } }).Id
    local own, other <close> = container({ HostConfig = { NetworkMode = "bridge" } }, { start = false })
    assert.truthy(other)
    assert.same({ true, 200 }, { engine:network_connect(id, { body = { Container = own, EndpointConfig = { Aliases = { "own" } } } }) })
    assert.equal(id, ok(engine:network_list { filters = FILTER })[1].Id)
    assert.equal(name, ok(engine:network_inspect(id, { verbose = false, scope = "local" })).Name)
    assert.truthy(ok(engine:container_inspect(own)).NetworkSettings.Networks[name])
    ok(engine:network_disconnect(id, { body = { Container = own, Force = true } }))
    assert.same({ true, 204 }, { engine:network_remove(id) })
    ok(engine:network_create { body = { Name = name, Labels = LABELS } })
    assert.same({ name }, ok(engine:network_prune { filters = FILTER }).NetworksDeleted)
  end },

  { "volume_list volume_inspect volume_create volume_remove volume_prune", function()
    local name = NAME .. "-volume"
    local guard <close> = closing(function() engine:volume_remove(name, { force = true }) end)
    assert.truthy(guard)
    assert.equal(name, ok(engine:volume_create { body = { Name = name, Driver = "local", Labels = LABELS } }).Name)
    assert.equal(name, ok(engine:volume_list { filters = FILTER }).Volumes[1].Name)
    assert.equal("local", ok(engine:volume_inspect(name)).Driver)
    assert.same({ true, 204 }, { engine:volume_remove(name) })
    assert.same({ true, 204 }, { engine:volume_remove(name, { force = true }) })
    ok(engine:volume_create { body = { Name = name, Labels = LABELS } })
    assert.same({ name }, ok(engine:volume_prune { filters = FILTER }).VolumesDeleted)
  end },
}

describe("a real engine", function()
  setup(function()
    shared = engines.shared()
    engines.image(shared, "busybox:1")
    registry = engines.registry().address
    engine = assert(dockrun.connect { endpoint = shared.endpoint, trace = function(call) calls[#calls + 1] = openapi.keep(call) end })
  end)

  for _, example in ipairs(examples) do
    local rows, call = table.unpack(example)
    it("takes " .. rows:gsub(" ", ", "), function()
      calls = {}
      call()
      local made = {}
      for _, one in ipairs(calls) do made[one.name] = true end
      for row in rows:gmatch "%S+" do assert.is_true(made[row], row .. " was not called") end
      for _, version in ipairs(openapi.versions) do
        assert.same({}, openapi.load(version):check_calls(calls), "by the specification of " .. version)
      end
    end)
  end

  it("was asked for every endpoint of the table by one of these", function()
    local covered = {}
    for _, example in ipairs(examples) do
      for row in example[1]:gmatch "%S+" do covered[row] = true end
    end
    for _, row in ipairs(operations) do assert.is_true(covered[row.name], "no example calls " .. row.name) end
  end)
end)
