local json = require "dockrun.core.json"
local openapi = require "spec.driver.openapi"

describe("a Swagger document", function()
  local function schema(of) return { name = "body", ["in"] = "body", required = true, schema = of } end
  local names = { type = "array", items = { type = "string" } }
  local pair = { allOf = {
    { ["$ref"] = "#/definitions/Limits" },
    { type = "object", required = { "Name" }, properties = { Name = { type = "string" }, Labels = { type = "object" } } },
  } }
  local doc = openapi.document {
    definitions = {
      Limits = { type = "object", properties = {
        Memory = { type = "integer", format = "int64", minimum = 0 },
        Weight = { type = "integer", format = "uint16", maximum = 1000 },
        Size = { type = "array", items = { type = "integer" }, minItems = 2, maxItems = 2 },
      } },
      Policy = { type = "string", enum = { "", "no", "always" } },
    },
    paths = {
      ["/pairs/create"] = { post = { parameters = { schema(pair) } } },
      ["/things/{id}"] = {
        get = { parameters = {
          { name = "all", ["in"] = "query", type = "boolean" },
          { name = "t", ["in"] = "query", type = "integer" },
          { name = "path", ["in"] = "query", type = "string", required = true },
          { name = "mode", ["in"] = "query", type = "string", enum = { "soft", "hard" } },
          { name = "type", ["in"] = "query", type = "array", items = { type = "string", enum = { "image", "volume" } } },
          { name = "X-Registry-Auth", ["in"] = "header", type = "string" },
        } },
        put = { parameters = { schema {
          type = "object",
          properties = {
            Policy = { description = "when", allOf = { { ["$ref"] = "#/definitions/Policy" } } },
            Ports = { type = "object", additionalProperties = { type = "object", enum = { {} } } },
            Bindings = { type = "object", additionalProperties = names },
            Share = { type = "number" }, Tty = { type = "boolean" }, Env = names,
            Holes = { type = "array", items = { type = "string", ["x-nullable"] = true } },
            Cmd = { type = "array", items = { type = "string" }, description = "a string or an array of strings" },
          },
        } } },
        post = { parameters = { { name = "tar", ["in"] = "body", schema = { type = "string", format = "binary" } } } },
      },
      ["/images/json"] = { get = {} },
      ["/images/{name}/json"] = { get = {} },
      ["/images/{name}"] = { delete = {} },
    },
  }
  local get, put = doc:operation("GET", "/things/{id}"), doc:operation("put", "/things/{id}")

  it("tells an operation's method, path, path parameters, query and headers", function()
    assert.equal("GET", get.method)
    assert.equal("/things/{id}", get.path)
    assert.same({ "id" }, get.path_params)
    assert.equal("boolean", get.query.all.type)
    assert.truthy(get.headers["X-Registry-Auth"])
    assert.is_nil(get.body)
  end)

  it("has no operation for another method or path", function()
    assert.is_nil(doc:operation("PATCH", "/things/{id}"))
    assert.is_nil(doc:operation("GET", "/things/{name}"))
  end)

  for _, case in ipairs {
    { "GET", "/things/a1", "/things/{id}", { id = "a1" } },
    { "GET", "/v1.41/things/a%3A1", "/things/{id}", { id = "a:1" } },
    { "GET", "/images/json", "/images/json", {} },
    { "GET", "/images/127.0.0.1:5000/a/b:1/json", "/images/{name}/json", { name = "127.0.0.1:5000/a/b:1" } },
    { "DELETE", "/images/docker.io/a%2Fb/json", "/images/{name}", { name = "docker.io/a/b/json" } },
  } do
    local method, path, template, expected = table.unpack(case)
    it(("finds %s %s by the path %s"):format(method, template, path), function()
      local op, params = doc:match(method, path)
      assert.equal(template, op.path)
      assert.same(expected, params)
    end)
  end

  it("finds nothing for a path or a method that it does not have", function()
    assert.is_nil((doc:match("GET", "/things/a/b")))
    assert.is_nil((doc:match("GET", "/thing/a")))
    assert.is_nil((doc:match("POST", "/images/json")))
  end)

  it("reads the query behind a path, a repeated name as a list", function()
    local _, _, query = doc:match("GET", "/v1.41/things/a?path=%2Fetc%2Fa+b&type=image&type=volume&all=")
    assert.same({ path = "/etc/a b", type = { "image", "volume" }, all = "" }, query)
  end)

  for _, case in ipairs {
    { "a parameter that does not exist", { path = "/", color = "red" }, { "color: unknown parameter of GET /things/{id}" } },
    { "a missing parameter", { t = 5 }, { "path: is missing" } },
    { "a wrong word for a boolean", { path = "/", all = "yes" }, { 'all: must be of type boolean, not "yes"' } },
    { "text for an integer", { path = "/", t = "soon" }, { 't: must be of type integer, not "soon"' } },
    { "a fraction for an integer", { path = "/", t = 0.5 }, { "t: must be of type integer, not 0.5" } },
    { "a value outside of an enum", { path = "/", mode = "odd" }, { 'mode: must be one of "soft", "hard", not "odd"' } },
    { "a wrong item of a list", { path = "/", type = { "image", "box" } }, { 'type: must be one of "image", "volume", not "box"' } },
    { "two of them at once", { color = "red" }, { "color: unknown parameter of GET /things/{id}", "path: is missing" } },
  } do
    local what, query, problems = table.unpack(case)
    it("finds fault with a query for " .. what, function() assert.same(problems, doc:check_query(get, query)) end)
  end

  it("takes a query as text and as values", function()
    assert.same({}, doc:check_query(get, { path = "/a", all = "1", t = "-1", mode = "hard", type = "image" }))
    assert.same({}, doc:check_query(get, { path = "/a", all = true, t = 10, type = { "image", "volume" } }))
  end)

  for _, case in ipairs {
    { "an unknown key", { Plicy = "no" }, "Plicy: unknown key" },
    { "a value outside of an enum", { Policy = "never" }, 'Policy: must be one of "", "no", "always", not "never"' },
    { "a string for a boolean", { Tty = "true" }, 'Tty: must be of type boolean, not "true"' },
    { "an object for a list", { Env = { A = "1" } }, "Env: must be of type array, not an object" },
    { "a list for an object", { Ports = { "80/tcp" } }, "Ports: must be of type object, not a list" },
    { "a wrong item", { Env = { "A=1", 2 } }, "Env[1]: must be of type string, not 2" },
    { "a wrong item in a map", { Bindings = { ["80/tcp"] = { {} } } },
      'Bindings["80/tcp"][0]: must be of type string, not an empty table' },
    { "a member of what must stay empty", { Ports = { ["80/tcp"] = { a = 1 } } },
      'Ports["80/tcp"]: must be one of an empty table, not an object' },
    { "a null that may not be", { Env = { json.null } }, "Env[0]: must not be null" },
    { "a bare value", "text", 'body: must be of type object, not "text"' },
    { "no body", nil, "body: is missing" },
  } do
    local what, body, problem = case[1], case[2], case[3]
    it("finds fault with a body for " .. what, function() assert.same({ problem }, doc:check_body(put, body)) end)
  end

  it("takes a body that is right", function()
    assert.same({}, doc:check_body(put, {
      Policy = "", Ports = { ["80/tcp"] = {} }, Bindings = { ["80/tcp"] = { "127.0.0.1" } }, Share = 0.5, Tty = false,
      Env = { "A=1" }, Holes = { "a", json.null, "b" }, Cmd = "echo hello",
    }))
  end)

  it("takes an empty table for an object and for a list", function()
    assert.same({}, doc:check_body(put, { Ports = {}, Env = {} }))
  end)

  describe("with a schema made of others", function()
    local create = doc:operation("POST", "/pairs/create")
    it("knows the members of all of them", function()
      assert.same({}, doc:check_body(create, { Name = "a", Memory = 1, Weight = 1000, Size = { 3, 4 } }))
    end)
    it("lets an object without named members hold anything", function()
      assert.same({}, doc:check_body(create, { Name = "a", Labels = { any = { thing = 1 } } }))
    end)
    for _, case in ipairs {
      { "a missing member", {}, "Name: is missing" },
      { "an unknown one", { Name = "a", Memroy = 1 }, "Memroy: unknown key" },
      { "a fraction for an integer", { Name = "a", Memory = 1.5 }, "Memory: must be of type integer, not 1.5" },
      { "a number under the minimum", { Name = "a", Memory = -1 }, "Memory: must be at least 0, not -1" },
      { "a number over the maximum", { Name = "a", Weight = 1001 }, "Weight: must be at most 1000, not 1001" },
      { "a number that its format cannot hold", { Name = "a", Weight = -1 }, "Weight: must be at least 0, not -1" },
      { "a list that is too short", { Name = "a", Size = { 1 } }, "Size: must have at least 2 items" },
      { "a list that is too long", { Name = "a", Size = { 1, 2, 3 } }, "Size: must have at most 2 items" },
    } do
      local what, body, problem = table.unpack(case)
      it("finds fault with " .. what, function() assert.same({ problem }, doc:check_body(create, body)) end)
    end
  end)

  it("takes an archive as a string, and no body if it may be left out", function()
    local post = doc:operation("POST", "/things/{id}")
    assert.same({}, doc:check_body(post, "tar\0"))
    assert.same({}, doc:check_body(post, nil))
  end)

  it("reports a body if there must be none", function()
    assert.same({}, doc:check_body(get, nil))
    assert.same({ "body: GET /things/{id} takes none" }, doc:check_body(get, {}))
  end)
end)

-- Slips of the documents' own examples.
local slips = {
  ['HostConfig.DeviceRequests[0]["DeviceIDs\\""]: unknown key'] = true,
  ["HostConfig.MaximumIOps: unknown key"] = true,
  ["HostConfig.MaximumIOBps: unknown key"] = true,
}

for _, version in ipairs(openapi.versions) do
  describe("the Engine API's document " .. version, function()
    local doc = openapi.load(version)

    it("is of that version", function() assert.equal("/v" .. version, doc.spec.basePath) end)

    it("holds only examples that agree with their schemas", function()
      local problems, seen = {}, 0
      for template, methods in pairs(doc.spec.paths) do
        for method in pairs(methods) do
          local op = doc:operation(method, template)
          local example = op.body and doc:flatten(op.body.schema).example
          if example then seen = seen + 1 end
          for _, problem in ipairs(example and doc:check_body(op, example) or {}) do
            if not slips[problem] then problems[#problems + 1] = ("%s %s: %s"):format(op.method, op.path, problem) end
          end
        end
      end
      assert.is_true(seen > 5)
      assert.same({}, problems)
    end)

    it("knows a container's ports, mounts and networks to their depth", function()
      local create = doc:operation("POST", "/containers/create")
      assert.same({
        "HostConfig.Mounts[0].Target: must be of type string, not 1",
        'HostConfig.PortBindings["80/tcp"][0].HostPort: must be of type string, not 8080',
        'HostConfig.RestartPolicy.Nmae: unknown key',
        'NetworkingConfig.EndpointsConfig.web.Aliases: must be of type array, not "a"',
      }, doc:check_body(create, {
        Image = "busybox", Entrypoint = "sh", Cmd = { "-c", "true" }, ExposedPorts = { ["80/tcp"] = {} },
        HostConfig = {
          Memory = 1024, Mounts = { { Type = "bind", Source = "/a", Target = 1 } }, RestartPolicy = { Nmae = "no" },
          PortBindings = { ["80/tcp"] = { { HostIp = "127.0.0.1", HostPort = 8080 } } },
        },
        NetworkingConfig = { EndpointsConfig = { web = { Aliases = "a" } } },
      }))
    end)
  end)
end
