-- Pulls from a registry that asks for credentials.
local credentials = require "dockrun.driver.credentials"
local dockrun = require "dockrun"
local engines = require "spec.engine"
local jobs = require "spec.jobs"
local options = require "dockrun.options"
local pl_dir = require "pl.dir"
local uv = require "luv"

describe("credentials", function()
  local dir

  local function write(name, text, mode)
    local file <close> = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
    file:close()
    if mode then assert(uv.fs_chmod(dir .. "/" .. name, tonumber(mode, 8))) end
    return dir .. "/" .. name
  end

  local changed = {}

  -- Sets a variable of the environment, for one example or until restore_env().
  local function with_env(name, value)
    if changed[name] == nil then changed[name] = os.getenv(name) or false end
    uv.os_setenv(name, value)
  end

  local function restore_env()
    for name, value in pairs(changed) do
      if value then uv.os_setenv(name, value) else uv.os_unsetenv(name) end
    end
    changed = {}
  end

  after_each(restore_env)

  setup(function() dir = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX")) end)
  teardown(function() pl_dir.rmtree(dir) end)

  local function set_of(more)
    local set = options.new()
    for name, value in pairs(more or {}) do set[name] = value end
    return set
  end

  local FILE = [[{"auths": {"https://registry.example:5000/v1/": {"auth": "am9lOnNlOmNyZXQ="}, "other.example": {"identitytoken": "tok"}},
    "credHelpers": {"helped.example": "spec"}}]]

  describe("are found", function()
    before_each(function() with_env("DOCKER_CONFIG", dir .. "/nothing") end)

    it("below $HOME if DOCKER_CONFIG is empty, as if it were unset", function()
      with_env("HOME", dir)
      with_env("DOCKER_CONFIG", "")
      assert(uv.fs_mkdir(dir .. "/.docker", 448))
      write(".docker/config.json", FILE)
      assert.equal("se:cret", credentials.find("registry.example:5000/x", nil, set_of()).password)
    end)

    it("in the task's auth first", function()
      local found = credentials.find("registry.example:5000/x", { username = "me", password = "p" },
        set_of { ["docker.auth.config"] = write("config.json", FILE) })
      assert.same({ username = "me", password = "p", serveraddress = "registry.example:5000" }, found)
    end)

    it("in the agent's file: name and password, tokens", function()
      local set = set_of { ["docker.auth.config"] = write("config.json", FILE) }
      assert.same({ username = "joe", password = "se:cret", serveraddress = "registry.example:5000" },
        credentials.find("registry.example:5000/x", nil, set))
      assert.same({ identitytoken = "tok", serveraddress = "other.example" }, credentials.find("other.example/x", nil, set))
    end)

    it("by a helper, of one registry or of all", function()
      write("docker-credential-spec", [[#!/bin/sh
read -r server
test "$server" = none.example && echo 'credentials not found in native keychain' && exit 1
echo '{"ServerURL":"'"$server"'","Username":"helper","Secret":"'"$1"'"}']], "755")
      with_env("PATH", dir .. ":" .. os.getenv "PATH")
      local expected = { username = "helper", password = "get", serveraddress = "helped.example" }
      assert.same(expected, credentials.find("helped.example/x", nil, set_of { ["docker.auth.config"] = write("config.json", FILE) }))
      assert.same(expected, credentials.find("helped.example/x", nil, set_of { ["docker.auth.helper"] = "spec" }))
      assert.same({}, { credentials.find("none.example/x", nil, set_of { ["docker.auth.helper"] = "spec" }) })
    end)

    it("in the user's own Docker configuration at last", function()
      with_env("DOCKER_CONFIG", dir)
      write("config.json", [[{"auths": {"https://index.docker.io/v1/": {"username": "hub", "password": "p"}}}]])
      assert.equal("hub", credentials.find("redis", nil, set_of()).username)
      assert.equal("hub", credentials.find("docker.io/library/redis", nil, set_of()).username)
      assert.same({}, { credentials.find("quay.example/redis", nil, set_of()) })
    end)

    for what, set in pairs {
      ["a file that is not there"] = { ["docker.auth.config"] = "/nowhere/config.json" },
      ["a helper that is not there"] = { ["docker.auth.helper"] = "nonesuch" },
    } do
      it("or else the error names " .. what, function()
        local found, err = credentials.find("x.example/y", nil, set_of(set))
        assert.is_nil(found)
        assert.equal("auth", err.kind)
        assert.matches(set["docker.auth.config"] or "docker-credential-nonesuch", err.message, 1, true)
      end)
    end
  end)

  describe("for a registry with a password", function()
    local registry, endpoint, image

    setup(function()
      -- bcrypt of "secret"
      with_env("REGISTRY_AUTH_HTPASSWD_PATH", write("htpasswd", "joe:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"))
      with_env("REGISTRY_AUTH_HTPASSWD_REALM", "spec")
      registry = engines.start_registry()
      restore_env()
      local shared = engines.shared()
      endpoint = shared.endpoint
      engines.image(shared, "busybox:1")
      local engine = assert(dockrun.connect { endpoint = endpoint })
      image = registry.address .. "/kept:1"
      assert(engine:image_tag("busybox:1", { repo = registry.address .. "/kept", tag = "1" }))
      local auth = { username = "joe", password = "secret", serveraddress = registry.address }
      for line in assert(engine:image_push(registry.address .. "/kept", { tag = "1", auth = auth })) do
        assert(not line.error, line.error)
      end
      assert(engine:image_remove(image))
    end)
    teardown(function() registry:stop() end)

    local function run(config, args)
      return jobs.run(endpoint, jobs.text { name = jobs.unique "auth", image = image, command = "exit 0", config = config }, args)
    end

    it("are used by the pull, and are in no event and on no container", function()
      local result = run "auth = { username = 'joe', password = 'secret' },"
      assert.equal(0, result.code, result.stdout)
      assert.falsy((result.stdout .. result.stderr):find("secret", 1, true))
    end)

    it("of the agent serve every task", function()
      local path = write("agent.json", ([[{"auths": {"%s": {"auth": "am9lOnNlY3JldA=="}}}]]):format(registry.address))
      assert.equal(0, run("", { "--set", "docker.auth.config=" .. path }).code)
    end)

    for what, config in pairs { ["that are wrong"] = "auth = { username = 'joe', password = 'wrong' },", ["that are missing"] = "" } do
      it(("%s fail the task, which says so"):format(what), function()
        local result = run(config)
        assert.equal(1, result.code)
        assert.matches("cannot pull .*kept:1", result.by.failed.message)
      end)
    end

    it("that cannot be had do not stop a task with auth_soft_fail from trying", function()
      local hard = run("", { "--set", "docker.auth.helper=nonesuch" })
      assert.matches("docker%-credential%-nonesuch", hard.by.failed.message)
      local soft = run("auth_soft_fail = true,", { "--set", "docker.auth.helper=nonesuch" })
      assert.matches("cannot pull", soft.by.failed.message)
    end)
  end)
end)
