-- The valid values of options, from each source: the command line, the environment, a file, and a host program.
local agents = require "dockrun.agent"
local options = require "dockrun.options"
local process = require "spec.process"
local rmtree = require("pl.dir").rmtree
local uv = require "luv"

-- { option, value, its error message }
local wrong = {
  { "docker.timeout", "0", "must be above 0, got 0" },
  { "docker.timeout", "-1", "must be above 0, got -1" },
  { "docker.timeout", "nan", "must be a number, got 'nan'" },
  { "docker.timeout", "1e999", "must be a number, got '1e999'" },
  { "docker.watch_interval", "0", "must be above 0, got 0" },
  { "docker.watch_interval", "1e300", "must be at most" },
  { "docker.bind_ip", "999.1.1.1", "must be an IP address, got '999.1.1.1'" },
  { "docker.bind_ip", "localhost", "must be an IP address, got 'localhost'" },
  { "docker.bind_ip", "${node.ip}", "must be an IP address, got '${node.ip}'" },
  { "docker.cleanup.container", "maybe", "must be true or false, got 'maybe'" },
  { "docker.cleanup.image_delay", "soon", "must be a duration such as '1m30s' or a number of seconds, got 'soon'" },
  { "docker.pull_timeout", "0s", "must be above 0, got 0" },
  { "docker.auth.helper", "../evil", "must be a name such as 'pass', got '../evil'" },
  { "docker.allow_caps", "chown,net-admin", "must be names of capabilities, or all, got 'net-admin'" },
  { "docker.allowed_modes.pid", "host,root", "must be one of host, container, got 'root'" },
  { "docker.volumes.selinuxlabel", "x", "must be z or Z, got 'x'" },
  { "docker.pids_limit", "-1", "must be at least 0, got -1" },
  { "docker.pids_limit", "1.5", "must be a whole number, got '1.5'" },
  { "docker.oom_score_adj", "1001", "must be at most 1000, got 1001" },
  { "ports.from", "0", "must be at least 1, got 0" },
  { "ports.from", "60001", "must not be below ports.from, which is 60001, got 60000" },
  { "ports.to", "19999", "must not be below ports.from, which is 20000, got 19999" },
  { "ports.to", "65536", "must be at most 65535, got 65536" },
  { "hook_timeout", "0", "must be above 0, got 0" },
  { "hook_instructions", "1e3x", "must be a whole number, got '1e3x'" },
  { "state_dir", " ", "must not be empty" },
  { "dev", "yes", "must be true or false, got 'yes'" },
}

local function blamed(case) return case[2] == "60001" and "ports.to" or case[1] end

-- Sets the option, checks all options and returns the error's message.
local function refused(set)
  local all = options.new()
  local ok, err = set(all)
  if ok then ok, err = options.check(all) end
  assert.falsy(ok)
  assert.equal("invalid", err.kind)
  return err.message
end

local function write(text, ending)
  local name = os.tmpname()
  local path = name .. ending
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return path, setmetatable({}, { __close = function() os.remove(path) os.remove(name) end })
end

describe("an option", function()
  it("is refused if it is out of range, from a file", function()
    for _, case in ipairs(wrong) do
      local path, _ <close> = write(("return { [%q] = %q }"):format(case[1], case[2]), ".lua")
      local message = refused(function(all) return options.read_file(all, path) end)
      assert.matches(("option '%s' %s"):format(blamed(case), case[3]), message, 1, true)
    end
  end)

  it("is refused if it is of another type, from a file and a host program", function()
    for _, row in ipairs(options.rows) do
      for _, value in ipairs { function() end, { { } }, { a = "b" } } do
        for _, set in ipairs {
          function(all) return options.set(all, row.name, value) end,
          function(all) all[row.name] = value return true end,
        } do
          assert.matches(("option '%s' must be"):format(row.name), refused(set), 1, true)
        end
      end
    end
  end)

  it("keeps its value if all options are set to their defaults", function()
    local all = options.new()
    for _, row in ipairs(options.rows) do
      local before = all[row.name]
      assert(options.set(all, row.name, before))
      assert.same(before, all[row.name])
    end
    assert(options.check(all))
  end)

  it("ends a command with exit code 2 if it is wrong, and the error names the option and its source", function()
    for _, case in ipairs {
      { { "--set", "ports.from=0", "status" }, {}, "--set: option 'ports.from' must be at least 1" },
      { { "--bind-ip", "1.2.3", "-e", "print(1)" }, {}, "--bind-ip: option 'docker.bind_ip' must be an IP address" },
      { { "status" }, { DOCKRUN_BIND_IP = "1.2.3" }, "DOCKRUN_BIND_IP: option 'docker.bind_ip' must be an IP address" },
      { { "-e", "print(1)" }, { DOCKRUN_JSON = "maybe" }, "DOCKRUN_JSON: expected 1, true, 0 or false, got 'maybe'" },
      { { "--set", "ports.to=5", "validate", "x.hcl" }, {}, "option 'ports.to' must not be below ports.from" },
    } do
      local result = process.run(case[1], { env = case[2] })
      assert.equal(2, result.code)
      assert.equal("", result.stdout)
      assert.matches(case[3], result.stderr, 1, true)
    end
    local path, _ <close> = write('{"docker": {"watch_interval": 0}}', ".json")
    local result = process.run { "--config", path, "status" }
    assert.equal(2, result.code)
    assert.matches(path .. ": option 'docker.watch_interval' must be above 0", result.stderr, 1, true)
  end)

  it("is refused before an agent of a host program starts", function()
    local all = options.new()
    all["ports.from"] = 0
    local agent, err = agents.new(all)
    assert.is_nil(agent)
    assert.equal("invalid", err.kind)
    assert.matches("option 'ports.from'", err.message, 1, true)
  end)

  it("is taken from the command line before the environment before a file", function()
    local path, _ <close> = write('return { state_dir = "/file", docker = { bind_ip = "1.1.1.1", endpoint = "unix:///file" } }', ".lua")
    local result = process.run({
      "--bind-ip", "3.3.3.3", "-e",
      'local o = require("dockrun").options print(o.state_dir, o["docker.bind_ip"], o["docker.endpoint"], o.dev)',
    }, { env = { DOCKRUN_CONFIG = path, DOCKRUN_STATE_DIR = "/env", DOCKRUN_BIND_IP = "2.2.2.2", DOCKRUN_DEV = "1" } })
    assert.equal("/env\t3.3.3.3\tunix:///file\ttrue\n", result.stdout)
  end)

  describe("of the system's or the user's file", function()
    local dir, etc, user

    before_each(function()
      dir = assert(uv.fs_mkdtemp "/tmp/dockrun-options-XXXXXX")
      etc, user = dir .. "/etc", dir .. "/home/.config/dockrun"
      for _, path in ipairs { etc, dir .. "/home", dir .. "/home/.config", user } do assert(uv.fs_mkdir(path, 448)) end
    end)
    after_each(function() rmtree(dir) end)

    local function put(place, text)
      local file <close> = assert(io.open(place .. "/config.lua", "w"))
      file:write(text)
    end

    local UNSHARED = [[mount -t tmpfs none /mnt && mkdir /mnt/dockrun && mount --bind "$0" /mnt/dockrun && mount --rbind /mnt /etc &&
      exec "$@"]]

    -- Runs dockrun in a mount namespace whose /etc holds only this spec's dockrun directory.
    local function run(words, env)
      local all = { HOME = dir .. "/home", XDG_CONFIG_HOME = false, DOCKRUN_CONFIG = false }
      for name, value in pairs(env or {}) do all[name] = value end
      return process.run({ "--mount", "sh", "-c", UNSHARED, etc, process.program, table.unpack(words) }, { program = "unshare", env = all })
    end

    local SHOW = { "-e", 'local o = require("dockrun").options print(o["docker.bind_ip"], o["docker.endpoint"], o["ports.from"], o.hooks)' }

    it("is used after the command line and the environment, the user's file before the system's", function()
      assert.equal("\tunix:///var/run/docker.sock\t20000\t\n", run(SHOW).stdout)  -- neither file exists
      put(etc, [[return {
        docker = { bind_ip = "1.1.1.1", endpoint = "unix:///system" }, ports = { from = 111 }, hooks = "/system",
      }]])
      assert.equal("1.1.1.1\tunix:///system\t111\t/system\n", run(SHOW).stdout)
      put(user, 'return { docker = { bind_ip = "2.2.2.2", endpoint = "unix:///user" }, ports = { from = 222 } }')
      local result = run({ "--set", "ports.from=444", table.unpack(SHOW) }, { DOCKRUN_BIND_IP = "3.3.3.3" })
      assert.equal("3.3.3.3\tunix:///user\t444\t/system\n", result.stdout, result.stderr)
      local there = { XDG_CONFIG_HOME = dir .. "/home/.config", HOME = "/nowhere" }
      assert.equal("2.2.2.2\tunix:///user\t222\t/system\n", run(SHOW, there).stdout)
      for _, elsewhere in ipairs { dir, "home/.config" } do
        assert.equal("1.1.1.1\tunix:///system\t111\t/system\n", run(SHOW, { XDG_CONFIG_HOME = elsewhere }).stdout)
      end
    end)

    it("is not used if another file is named", function()
      put(etc, "return { ports = 5 }")
      put(user, "not Lua")
      local result = run(SHOW, { DOCKRUN_CONFIG = uv.cwd() .. "/spec/no_config.lua" })
      assert.equal("\tunix:///var/run/docker.sock\t20000\t\n", result.stdout)
    end)

    it("ends the command with exit code 2 if it is wrong, and the error names the file and the option", function()
      for _, place in ipairs { etc, user } do
        local path = place == etc and "/etc/dockrun/config.lua" or user .. "/config.lua"
        for text, message in pairs {
          ["return { ports = { from = 0 } }"] = path .. ": option 'ports.from' must be at least 1",
          ["return { colour = 1 }"] = path .. ": no option 'colour'",
          ["return 5"] = path .. ": not a table of options",
          ["return {"] = path .. ": not a table of options",
        } do
          put(place, text)
          local result = run { "status" }
          assert.equal(2, result.code)
          assert.matches(message, result.stderr, 1, true)
        end
        os.remove(place .. "/config.lua")
      end
    end)

    it("is refused by root if another user can write to the file, or if it is not a file", function()
      for _, place in ipairs { etc, user } do
        local path = place .. "/config.lua"
        put(place, "return {}")
        for mode, code in pairs { ["600"] = 0, ["644"] = 0, ["664"] = 2, ["646"] = 2 } do
          assert(uv.fs_chmod(path, tonumber(mode, 8)))
          local result = run { "-e", "" }
          assert.equal(code, result.code, mode)
          assert.matches(code == 2 and "config.lua: other users may write to it" or "", result.stderr, 1, true)
        end
        assert(uv.fs_chmod(path, 384))
        assert(uv.fs_chown(path, 12345, 0))
        local result = run { "-e", "" }
        assert.equal(2, result.code)
        assert.matches("config.lua: its owner is user 12345", result.stderr, 1, true)
        os.remove(path)
        assert(uv.fs_mkdir(path, 448))
        result = run { "-e", "" }
        assert.equal(2, result.code)
        assert.matches("config.lua: expected a regular file, got a directory", result.stderr, 1, true)
        assert(uv.fs_rmdir(path))
      end
    end)
  end)

  it("for the state directory may be relative to the current directory", function()
    local result = process.run({ "--state-dir", "x/y", "-e", 'print(require("dockrun").options.state_dir)' }, { cwd = "/tmp" })
    assert.equal("/tmp/x/y\n", result.stdout)
  end)
end)
