local env = require "dockrun.task.env"

local function build(changes)
  local context = {
    job = { name = "cache", meta = { owner = "platform", level = "job" } },
    group = { name = "redis", meta = { level = "group", ["my-key.x"] = "k" } },
    resolved = { name = "server", meta = { Level = "task" }, env = {}, resources = { cpu = 500, memory = 256 } },
    alloc = { id = "5a1f", index = 2 },
    ip = "10.0.0.1",
    ports = {},
  }
  for key, value in pairs(changes or {}) do context[key] = value end
  return env.build(context)
end

describe("a task's environment", function()
  it("says where and what it is", function()
    assert.same({
      NOMAD_IP = "10.0.0.1", NOMAD_MEMORY_LIMIT = "256", NOMAD_CPU_LIMIT = "500", NOMAD_ALLOC_ID = "5a1f",
      NOMAD_ALLOC_NAME = "cache.redis[2]", NOMAD_ALLOC_INDEX = "2", NOMAD_JOB_NAME = "cache", NOMAD_GROUP_NAME = "redis",
      NOMAD_TASK_NAME = "server", NOMAD_ALLOC_DIR = "/alloc", NOMAD_TASK_DIR = "/local", NOMAD_SECRETS_DIR = "/secrets",
      NOMAD_META_OWNER = "platform", NOMAD_META_LEVEL = "task", NOMAD_META_MY_KEY_X = "k",
    }, build())
  end)

  it("has the host's port under a numeric label", function()
    local built = build { ports = { { label = "6379", host_port = 22333, container_port = 6379 } } }
    assert.equal("22333", built.NOMAD_PORT_6379)
    assert.equal("22333", built.NOMAD_HOST_PORT_6379)
    assert.equal("10.0.0.1:22333", built.NOMAD_ADDR_6379)
    assert.equal("10.0.0.1", built.NOMAD_IP_6379)
  end)

  it("has the port to bind under any other label, as written and in upper case", function()
    local built = build { ports = {
      { label = "admin-ui", host_port = 20001, container_port = 20001 },
      { label = "http", host_port = 20002, container_port = 8080 },
    } }
    assert.same({ "20001", "20001" }, { built["NOMAD_PORT_admin-ui"], built.NOMAD_PORT_ADMIN_UI })
    assert.same({ "8080", "20002", "10.0.0.1:20002" }, { built.NOMAD_PORT_HTTP, built.NOMAD_HOST_PORT_http, built.NOMAD_ADDR_HTTP })
  end)

  it("keeps a label as written where another is the same in upper case", function()
    local built = build { ports = {
      { label = "HTTP", host_port = 20001, container_port = 20001 },
      { label = "http", host_port = 20002, container_port = 20002 },
    } }
    assert.same({ "20001", "20002" }, { built.NOMAD_PORT_HTTP, built.NOMAD_PORT_http })
  end)

  it("has an IPv6 address in brackets before a port", function()
    local built = build { ip = "fd00::1", ports = { { label = "http", host_port = 20001, container_port = 20001 } } }
    assert.equal("[fd00::1]:20001", built.NOMAD_ADDR_http)
    assert.equal("fd00::1", built.NOMAD_IP)
  end)

  it("lets the task's own values win", function()
    local task = { name = "t", env = { NOMAD_IP = "mine", LEVEL = "info" }, resources = { cpu = 100, memory = 300 } }
    local built = build { resolved = task }
    assert.same({ "mine", "info" }, { built.NOMAD_IP, built.LEVEL })
  end)

  it("holds only strings", function()
    for name, value in pairs(build { ports = { { label = "a", host_port = 1, container_port = 1 } } }) do
      assert.equal("string", type(value), name)
    end
  end)
end)
