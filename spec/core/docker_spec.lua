-- The way of a call: what goes out, what of the answer comes back, which version of the API is spoken, and every kind of
-- error. Against engines that say what they are told here; calls_spec.lua has the real one.
local dockrun = require "dockrun"
local docker = require "dockrun.core.docker"
local servers = require "spec.server"

local function connect(server, options)
  options = options or {}
  options.endpoint = server.endpoint
  return assert(docker.connect(options))
end

-- An engine that answers everything but /version alike, and keeps the requests.
local function answering(body, status, headers, opts)
  local seen = {}
  local server = servers.engine(function(connection, request)
    seen[#seen + 1] = request
    connection:answer(body, status, headers)
  end, opts)
  return server, seen
end

local function error_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

describe("docker.connect", function()
  for what, case in pairs {
    ["no endpoint"] = { {}, "'endpoint' is missing" }, ["an endpoint that is no text"] = { { endpoint = 5 }, "'endpoint' is missing" },
    ["a negative time-out"] = { { endpoint = "unix:///x", timeout = -1 }, "time-out" },
  } do
    it("raises for " .. what, function() assert.matches(case[2], error_of(docker.connect, case[1]), 1, true) end)
  end

  for _, endpoint in ipairs { "", "/var/run/docker.sock", "unix://", "tcp://", "ftp://host", "npipe:////./pipe/docker" } do
    it("says what is wrong with the endpoint '" .. endpoint .. "'", function()
      local engine, err = docker.connect { endpoint = endpoint }
      assert.is_nil(engine)
      assert.equal("invalid", err.kind)
      assert.matches(("the endpoint '%s' is none of unix:///path, tcp://host:port"):format(endpoint), err.message, 1, true)
    end)
  end

  it("sends nothing yet, and tells its endpoint", function()
    local engine = assert(docker.connect { endpoint = "unix:///nowhere/docker.sock" })
    assert.equal("unix:///nowhere/docker.sock", engine:endpoint())
    assert.equal("engine (unix:///nowhere/docker.sock)", tostring(engine))
    assert.is_nil(engine:api())
  end)
end)

describe("the version of the API", function()
  for newest, spoken in pairs {
    ["1.24"] = "1.24", ["1.30"] = "1.30", ["1.41"] = "1.41", ["1.55"] = "1.55", ["1.56"] = "1.55", ["1.99"] = "1.55",
  } do
    it("is " .. spoken .. " with an engine that speaks up to " .. newest, function()
      local server <close>, seen = answering("{}", nil, nil, { newest = newest })
      local engine = connect(server)
      assert(engine:info())
      assert(engine:info())
      assert.equal(spoken, engine:api())
      assert.same({ ("GET /v%s/info HTTP/1.1"):format(spoken), 2 }, { seen[2].line, #seen })
    end)
  end

  for what, range in pairs { ["too old"] = { "1.12", "1.23" }, ["too new"] = { "1.56", "1.60" } } do
    it("is none with an engine that is " .. what, function()
      local server <close> = servers.engine(function() error "called" end, { oldest = range[1], newest = range[2] })
      local answer, err = connect(server):info()
      assert.is_nil(answer)
      assert.same({ "invalid", ("the Docker engine at %s speaks API %s to %s, dockrun 1.24 to 1.55"):format(server.endpoint,
        range[1], range[2]) }, { err.kind, err.message })
    end)
  end

  for what, text in pairs {
    ["a web page"] = "<html>hello</html>", ["JSON of something else"] = '{"version":"1"}', ["a list"] = "[1]", ["nothing"] = "",
    ["an odd version"] = '{"ApiVersion":"two"}', ["a version that is no text"] = '{"ApiVersion":1.41}',
  } do
    it("is none where what answers is no engine, but " .. what, function()
      local server <close> = servers.start(function(connection)
        while connection:request() do connection:answer(text) end
      end)
      local answer, err = connect(server):info()
      assert.is_nil(answer)
      assert.equal("protocol", err.kind)
      assert.equal(("the Docker engine at %s does not tell its API version: is it a Docker engine?"):format(server.endpoint), err.message)
    end)
  end

  it("is not known where the engine refuses to tell: its words count", function()
    local server <close> = servers.start(function(connection)
      while connection:request() do connection:answer('{"message":"starting up"}', "503 Busy") end
    end)
    local answer, err = connect(server):info()
    assert.is_nil(answer)
    assert.same({ "engine", 503, "starting up" }, { err.kind, err.status, err.message })
  end)

  it("is asked for anew where an engine took another's place", function()
    local newest, lines = "1.55", {}
    local server <close> = servers.start(function(connection)
      for request in function() return connection:request() end do
        lines[#lines + 1] = request.line:match " (%S+)"
        if request.line:find "/version" then
          connection:answer(('{"ApiVersion":"%s"}'):format(newest))
        elseif request.line:find(newest, 1, true) then
          connection:answer "{}"
        else
          connection:answer('{"message":"client version is too new"}', "400 Bad Request")
        end
      end
    end)
    local engine = connect(server)
    assert(engine:info())
    newest = "1.40"
    local answer, err = engine:info()
    assert.is_nil(answer)
    assert.same({ 400, "client version is too new" }, { err.status, err.message })
    assert(engine:info())
    assert.same({ "/version", "/v1.55/info", "/v1.55/info", "/version", "/v1.40/info" }, lines)
  end)

  it("is asked for once, however many calls begin at the same time", function()
    local lines = {}
    local server <close> = servers.start(function(connection)
      for request in function() return connection:request() end do
        lines[request.line] = (lines[request.line] or 0) + 1
        connection:answer(request.line:find "/version" and '{"ApiVersion":"1.41"}' or "{}")
      end
    end)
    local engine, functions = connect(server), {}
    for i = 1, 20 do functions[i] = function() return assert(engine:info()) end end
    assert.equal(20, #dockrun.all(functions))
    assert.same({ ["GET /version HTTP/1.1"] = 1, ["GET /v1.41/info HTTP/1.1"] = 20 }, lines)
  end)

  it("is asked for once where the engine refuses to tell, and each call has an error of its own", function()
    local asked = 0
    local server <close> = servers.start(function(connection)
      while connection:request() do
        asked = asked + 1
        connection:answer('{"message":"starting up"}', "503 Busy")
      end
    end)
    local engine, calls = connect(server), {}
    for i = 1, 3 do calls[i] = dockrun.spawn(engine.info, engine) end
    for _, call in ipairs(calls) do
      local answer, err = call:await()
      assert.same({ nil, "engine", 503, "starting up" }, { answer, err.kind, err.status, tostring(err) })
      err.message = "changed by its caller"
    end
    assert.equal(1, asked)
  end)

  it("is asked for by the next call where the one that asks runs out of its time, or is cancelled", function()
    for _, way in ipairs { "timeout", "cancel" } do
      local asked, go = 0, dockrun.queue()
      local server <close> = servers.start(function(connection)
        for request in function() return connection:request() end do
          if request.line:find "/version" then
            asked = asked + 1
            if asked == 1 then
              go:push(true)
              connection:await_end()
              return
            end
            connection:answer '{"ApiVersion":"1.41"}'
          else
            connection:answer "{}"
          end
        end
      end)
      local engine = connect(server)
      local first = dockrun.spawn(engine.info, engine, { timeout = way == "timeout" and 0.2 or nil })
      go:pop()
      local impatient = dockrun.spawn(engine.info, engine, { timeout = 0.05 })
      local others = { dockrun.spawn(engine.info, engine), dockrun.spawn(engine.info, engine) }
      assert.equal("timeout", select(2, impatient:await()).kind)
      if way == "cancel" then first:cancel() end
      assert.equal(way == "timeout", pcall(first.await, first))
      for _, other in ipairs(others) do assert.same({}, assert(other:await(20))) end
      assert.equal(2, asked)
    end
  end)

  it("is not known where nobody listens", function()
    local server = answering "{}"
    server:close()
    local engine = connect(server)
    local answer, err = engine:info { timeout = 5 }
    assert.is_nil(answer)
    assert.same({ "unreachable", true }, { err.kind, err.message:find("^cannot reach the Docker engine at unix://") ~= nil })
  end)

  it("decides which parameters there are, before anything is sent", function()
    local server <close>, seen = answering("", "204 No Content", nil, { newest = "1.41" })
    local answer, err = connect(server):container_stop("x", { signal = "INT" })
    assert.is_nil(answer)
    assert.equal("invalid", err.kind)
    assert.equal(("container_stop: 'signal' needs API 1.42, and the Docker engine at %s speaks 1.41"):format(server.endpoint), err.message)
    assert.equal(0, #seen)
    local newer <close> = answering("", "204 No Content", nil, { newest = "1.42" })
    assert(connect(newer):container_stop("x", { signal = "INT" }))
  end)
end)

describe("a call", function()
  -- The request that a call makes: its first line's target, and itself.
  local function sent(call, opts)
    local server <close>, seen = answering("{}", nil, nil, opts)
    local answer, err = call(connect(server))
    assert(answer, err)
    return seen[1].line:match "^(%S+ %S+) HTTP/1.1$", seen[1]
  end

  for expected, call in pairs {
    ["GET /_ping"] = function(engine) return engine:system_ping() end,
    ["GET /v1.41/containers/web%2F1%3Fa%23%20%C3%BC/json?size=true"] =
      function(engine) return engine:container_inspect("web/1?a# ü", { size = true }) end,
    ["GET /v1.41/images/127.0.0.1:5000/a/b@sha256:0f/json"] =
      function(engine) return engine:image_inspect "127.0.0.1:5000/a/b@sha256:0f" end,
    ["POST /v1.41/containers/web/stop"] = function(engine) return engine:container_stop "/web" end,
    ["POST /v1.41/networks/web/connect"] = function(engine) return engine:network_connect "/web" end,
    ["GET /v1.41/containers/%2Fweb/json"] = function(engine) return engine:container_inspect "//web" end,
    ["GET /v1.41/images/odd%20name%3F/json"] = function(engine) return engine:image_inspect "odd name?" end,
    ["POST /v1.41/containers/x/stop?t=5"] = function(engine) return engine:container_stop("x", { t = 5.0 }) end,
    ["POST /v1.41/containers/x/rename?name=a%26b%3Dc%2B%20d"] =
      function(engine) return engine:container_rename("x", { name = "a&b=c+ d" }) end,
    ["GET /v1.41/containers/json?all=false&limit=-1&filters=%7B%22label%22%3A%5B%22a%22%5D%7D"] =
      function(engine) return engine:container_list { all = false, limit = -1, filters = { label = { "a" } } } end,
    ["POST /v1.41/images/create?fromImage=r%2Fa&tag=1&platform=linux%2Farm64"] =
      function(engine) return engine:image_pull { fromImage = "r/a", tag = "1", platform = "linux/arm64" } end,
  } do
    it("asks for " .. expected, function() assert.equal(expected, (sent(call))) end)
  end

  it("repeats a parameter that is a list", function()
    assert.equal("GET /v1.42/system/df?type=image&type=volume",
      (sent(function(engine) return engine:df { type = { "image", "volume" } } end, { newest = "1.42" })))
  end)

  it("sends its body as JSON, an empty one where there is none", function()
    local _, request = sent(function(engine) return engine:container_create { body = { Image = "x", Cmd = dockrun.json.array() } } end)
    assert.same({ Image = "x", Cmd = {} }, dockrun.json.decode(request.body))
    assert.matches('"Cmd":[]', request.body, 1, true)
    assert.equal("application/json", request.headers["content-type"])
    _, request = sent(function(engine) return engine:exec_create "x" end)
    assert.equal("{}", request.body)
    _, request = sent(function(engine) return engine:container_start "x" end)
    assert.same({ "", "0", nil }, { request.body, request.headers["content-length"], request.headers["content-type"] })
    local large = ("x"):rep(3 * 1024 * 1024)
    _, request = sent(function(engine) return engine:volume_create { body = { Name = large } } end)
    assert.is_true(large == dockrun.json.decode(request.body).Name)
  end)

  it("sends an archive as it is", function()
    local _, request = sent(function(engine) return engine:archive_put("x", { path = "/", body = "\0tar\xff" }) end)
    assert.same({ "\0tar\xff", "application/x-tar" }, { request.body, request.headers["content-type"] })
  end)

  it("sends credentials in the alphabet of URLs, and an empty object without", function()
    local auth = { password = "~~~???>>>" }
    local _, request = sent(function(engine) return engine:image_push("x", { auth = auth }) end)
    assert.equal("eyJwYXNzd29yZCI6In5-fj8_Pz4-PiJ9", request.headers["x-registry-auth"])
    _, request = sent(function(engine) return engine:image_pull { fromImage = "x" } end)
    assert.equal("e30=", request.headers["x-registry-auth"])
    _, request = sent(function(engine) return engine:info { auth = auth } end)
    assert.is_nil(request.headers["x-registry-auth"])
  end)

  it("is seen by a trace before it is sent", function()
    local server <close>, seen = answering "{}"
    local traced = {}
    local engine = connect(server, { trace = function(call)
      traced[#traced + 1] = { call.name, call.method, call.path, call.options.t, #seen }
    end })
    assert(engine:container_stop("x", { t = 3 }))
    assert.same({ { "container_stop", "POST", "/v1.41/containers/x/stop?t=3", 3, 0 } }, traced)
  end)

  for what, case in pairs {
    ["an unknown option"] = { function(e) return e:container_stop("x", { T = 5 }) end,
      "container_stop: no option 'T'; it takes: signal@1.42 t body auth tty timeout" },
    ["an option without a name"] = { function(e) return e:container_stop("x", { 5 }) end, "options are named" },
    ["options that are none"] = { function(e) return e:container_stop("x", 5) end, "table of options expected" },
    ["no id"] = { function(e) return e:container_stop() end, "its argument 1 is the id" },
    ["options in place of the id"] = { function(e) return e:container_stop { t = 5 } end, "its argument 1 is the id" },
    ["an empty id"] = { function(e) return e:container_stop "" end, "a string that is not empty" },
    ["nothing but a slash"] = { function(e) return e:container_stop "/" end, "a string that is not empty" },
    ["a way out of the path behind a slash"] = { function(e) return e:container_stop "/." end, "has no '..'" },
    ["a way out of the path"] = { function(e) return e:image_inspect "../../info" end, "has no '..'" },
    ["a body where there is none"] = { function(e) return e:info { body = {} } end, "info takes no body, not a table" },
    ["a body that is no table"] = { function(e) return e:container_create { body = "{}" } end, "takes a table as its body, not a string" },
    ["an archive that is a table"] = { function(e) return e:image_load { body = {} } end, "a string or a function as its body" },
    ["a negative time-out"] = { function(e) return e:info { timeout = -1 } end, "time-out" },
  } do
    it("raises for " .. what .. ", and sends nothing", function()
      local server <close>, seen = answering "{}"
      local engine = connect(server)
      assert(engine:info())
      assert.matches(case[2], error_of(case[1], engine), 1, true)
      assert.equal(1, #seen)
    end)
  end

  it("gives an error for a body that has no JSON", function()
    local server <close>, seen = answering "{}"
    local answer, err = connect(server):container_create { body = { Image = print } }
    assert.is_nil(answer)
    assert.equal("invalid", err.kind)
    assert.matches("container_create: its body is not JSON", err.message)
    assert.equal(0, #seen)
  end)
end)

local function base64(text)
  local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local encoded = text:gsub("..?.?", function(three)
    local a, b, c = three:byte(1, 3)
    local bits = a << 16 | (b or 0) << 8 | (c or 0)
    local four = ""
    for i = 18, 0, -6 do
      local digit = (bits >> i & 63) + 1
      four = four .. digits:sub(digit, digit)
    end
    return four:sub(1, #three + 1) .. ("="):rep(3 - #three)
  end)
  return encoded
end

describe("an answer", function()
  local function answer_of(call, ...)
    local server <close> = answering(...)
    return call(connect(server))
  end
  local function info(engine) return engine:info() end

  it("of JSON is its value, then the status", function()
    assert.same({ { ID = "x", N = 12345678901234567 }, 200 }, { answer_of(info, '{"ID":"x","N":12345678901234567,"Gone":null}') })
    assert.same({ { "a" }, 201 }, { answer_of(info, '["a"]', "201 Created") })
    local list = answer_of(info, "null")
    assert.same({}, list)
    assert.is_true(dockrun.json.is_array(list))
  end)

  it("of text is the text, and of none is true", function()
    assert.same({ "OK", 200 }, { answer_of(function(engine) return engine:system_ping() end, "OK") })
    for _, status in ipairs { 200, 204, 304 } do
      assert.same({ true, status }, { answer_of(function(engine) return engine:container_start "x" end, "", status .. " Fine") })
    end
  end)

  it("of a path's state is what its header says", function()
    local function head(engine) return engine:archive_head("x", { path = "/" }) end
    local stat = '{"name":"n","size":5,"linkTarget":"' .. ("t"):rep(4000) .. '"}'
    local server <close> = servers.engine(function(connection)
      connection:write("HTTP/1.1 200 OK\r\nX-Docker-Container-Path-Stat: " .. base64(stat) .. "\r\n\r\n")
    end)
    local seen = assert(head(connect(server)))
    assert.same({ "n", 5, 4000 }, { seen.name, seen.size, #seen.linkTarget })
    for _, header in ipairs { "", "X-Docker-Container-Path-Stat: !!!\r\n", "X-Docker-Container-Path-Stat: e30\r\n" } do
      local missing <close> = servers.engine(function(connection) connection:write("HTTP/1.1 200 OK\r\n" .. header .. "\r\n") end)
      local value, err = head(connect(missing))
      if header:find "e30" then assert.same({}, value) else assert.same({ nil, "protocol" }, { value, err.kind }) end
    end
  end)

  for what, text in pairs { ["is no JSON"] = "<html>", ["is cut short"] = '{"a":', ["is nothing"] = "" } do
    it("that " .. what .. " where JSON is due is an error, with what it was", function()
      local value, err = answer_of(info, text)
      assert.is_nil(value)
      assert.equal("protocol", err.kind)
      assert.matches("the answer to GET /info is not JSON, from the Docker engine at unix://", err.message, 1, true)
      assert.matches(": " .. text .. "$", err.message)
    end)
  end

  for what, case in pairs {
    ["as JSON"] = { '{"message":"No such container: x"}\n', "No such container: x" },
    ["as text"] = { "No such container: " .. ("x"):rep(5000) .. "\r\n", "No such container: " .. ("x"):rep(5000) },
    ["with line breaks"] = { '{"message":"first\\nsecond\\n"}', "first\nsecond" },
    ["of any length"] = { '{"message":"' .. ("long "):rep(50000) .. '"}', ("long "):rep(50000) },
    ["in any script"] = { '{"message":"Größe \\u2717"}', "Größe ✗" },
  } do
    it("of refusal gives the engine's words whole, " .. what, function()
      local value, err = answer_of(info, case[1], "404 Not Found", "Api-Version: 1.41\r\n")
      assert.is_nil(value)
      assert.same({ "engine", 404, "info" }, { err.kind, err.status, err.call })
      assert.is_true(case[2] == err.message)
      assert.equal(err.message, tostring(err))
    end)
  end

  it("of refusal in other words is shown, and who refused what", function()
    for text, kind in pairs { ['{"error":"x"}'] = "engine", ["<html>no</html>"] = "protocol" } do
      local value, err = answer_of(info, text, "404 Not Found")
      assert.is_nil(value)
      assert.same({ kind, 404, "info" }, { err.kind, err.status, err.call })
      assert.matches("^the Docker engine at unix://%S+ answered 404 to GET /info.*: " .. text .. "$", err.message)
    end
  end)

  it("of refusal without a word says who refused what", function()
    local value, err = answer_of(function(engine) return engine:container_start "x" end, "", "500 Oh")
    assert.is_nil(value)
    assert.matches("^the Docker engine at unix://%S+ answered 500 to POST /containers/{id}/start$", err.message)
  end)

  -- 1xx is never the last answer, and 304 has a meaning for two calls alone.
  for _, status in ipairs { 300, 301, 302, 303, 304, 307, 308, 399 } do
    it(("of %d is no success, of whatever call"):format(status), function()
      local calls = {
        info = {}, system_ping = {}, container_kill = { "x" }, container_pause = { "x" }, container_remove = { "x" },
        container_rename = { "x", { name = "y" } }, network_connect = { "x" }, archive_head = { "x", { path = "/" } }, events = {},
        image_pull = { { fromImage = "x" } }, container_logs = { "x" }, archive_get = { "x", { path = "/" } },
        container_attach = { "x" }, exec_start = { "x" }, image_load = { { body = "tar" } },
        archive_put = { "x", { path = "/", body = function() end } },
      }
      calls.container_stop = status ~= 304 and { "x" } or nil
      local server <close> = answering("", status .. " Elsewhere", "Location: /v1.41/other\r\n")
      local engine = connect(server)
      for name, arguments in pairs(calls) do
        local value, err = engine[name](engine, table.unpack(arguments))
        assert.same({ name, "engine", status }, { value or name, err.kind, err.status })
        assert.matches(("^the Docker engine at unix://%%S+ answered %d to %%u+ /%%S+ %%(it points to /v1.41/other%%)$"):format(status),
          err.message)
      end
    end)
  end

  it("of a redirect instead of the version is an error", function()
    local server <close> = servers.start(function(connection)
      while connection:request() do connection:answer("", "301 Moved Permanently", "Location: /login\r\n") end
    end)
    local value, err = connect(server):info()
    assert.same({ 301 }, { value or err.status })
  end)

  it("larger than 64 MiB is an error", function()
    local server <close> = servers.engine(function(connection)
      connection:write "HTTP/1.1 200 OK\r\n\r\n[\""
      repeat until not connection:write(("x"):rep(1 << 20))
      return false
    end)
    local value, err = connect(server):info()
    assert.is_nil(value)
    assert.same({ "protocol", true }, { err.kind, err.message:find("more than 67108864 bytes", 1, true) ~= nil })
  end)
end)

describe("a time-out", function()
  -- An engine that negotiates, and is silent then.
  local function silent()
    return servers.engine(function(connection)
      connection:await_end()
      return false
    end)
  end

  it("is the call's own, or the engine's", function()
    local server <close> = silent()
    for _, case in ipairs { { {}, { timeout = 0.05 } }, { { timeout = 0.05 }, {} } } do
      local answer, err = connect(server, case[1]):info(case[2])
      assert.is_nil(answer)
      assert.equal("timeout", err.kind)
      assert.equal("no answer in time from the Docker engine at " .. server.endpoint, err.message)
    end
  end)

  it("leaves the time that the engine was given itself", function()
    local server <close> = servers.engine(function(connection)
      dockrun.sleep(0.3)
      connection:answer("", "204 No Content")
    end)
    assert.same({ true, 204 }, { connect(server, { timeout = 0.1 }):container_stop("x", { t = 60 }) })
  end)

  it("is none for what may take as long as it takes", function()
    local server <close> = servers.engine(function(connection)
      dockrun.sleep(0.2)
      connection:answer '{"StatusCode":0}'
    end)
    assert.equal(0, assert(connect(server, { timeout = 0.1 }):container_wait "x").StatusCode)
  end)

  it("holds for the negotiation too", function()
    local server <close> = servers.start(function(connection) connection:await_end() end)
    local answer, err = connect(server):info { timeout = 0.05 }
    assert.same({ nil, "timeout" }, { answer, err.kind })
    answer, err = connect(server, { timeout = 0.05 }):events()
    assert.same({ nil, "timeout" }, { answer, err.kind })
  end)
end)
