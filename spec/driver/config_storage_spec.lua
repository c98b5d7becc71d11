-- What a job can bind: its own directories, and nothing that these lead to.
local dirs = require "dockrun.driver.dirs"
local driver = require "dockrun.driver.docker"
local engines = require "spec.engine"
local files = require "dockrun.driver.files"
local jobs = require "spec.jobs"
local options = require "dockrun.options"
local pl_dir = require "pl.dir"
local uv = require "luv"

describe("a path of a job", function()
  local base, of

  before_each(function()
    base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
    of = dirs.of(base .. "/state", "a110c", "web")
    assert(dirs.make(of))
    assert(dirs.make(dirs.of(base .. "/state", "a110c", "other")))
    assert(uv.fs_mkdir(base .. "/host", 511))
  end)

  after_each(function() pl_dir.rmtree(base) end)

  local function link(target, path) assert(uv.fs_symlink(target, path)) end

  for path, there in pairs {
    ["local"] = "/web/local", ["local/data"] = "/web/local/data", ["./local/../local"] = "/web/local", ["."] = "/web",
    ["../alloc/data"] = "/alloc/data", ["new/er"] = "/web/new/er",
  } do
    it(("'%s' is %s of the allocation"):format(path, there), function()
      assert.equal(of.root .. there, assert(files.own(of, path)))
    end)
  end

  for _, path in ipairs {
    "..", "../..", "../other", "../other/local", "../web2", "local/../../../..", "/", "/etc", "/alloc", "../allocx",
  } do
    it(("'%s' is none of the task's"):format(path), function()
      assert.is_false(files.is_own(of, path))
      local found, err = files.own(of, path)
      assert.is_nil(found)
      assert.equal("invalid", err.kind)
    end)
  end

  it("may be absolute, where it is the task's", function()
    assert.equal(of.alloc .. "/data", files.own(of, of.alloc .. "/data"))
  end)

  it("is what a link within the directories leads to", function()
    link("../../alloc/data", of.task .. "/shared")
    assert.equal(of.alloc .. "/data/x", files.own(of, "local/shared/x"))
  end)

  for what, target in pairs { ["out of them"] = "host", ["to another task"] = "state/alloc/a110c/other/local", ["to nothing"] = "gone" } do
    it("is refused where a link leads " .. what, function()
      link(base .. "/" .. target, of.task .. "/link")
      assert.is_nil((files.own(of, "local/link")))
      assert.is_nil((files.own(of, "local/link/below")))
    end)
  end

  it("is refused where a link took the place of /local itself", function()
    assert(uv.fs_rename(of.task, base .. "/moved"))
    link(base .. "/host", of.task)
    assert.is_nil((files.own(of, of.task)))
  end)

  it("may be below a state directory that is a link, or is relative", function()
    link(base .. "/state", base .. "/linked")
    assert.equal(of.task, files.own(dirs.of(base .. "/linked", "a110c", "web"), "local"))
    local up = uv.cwd():gsub("[^/]+", ".."):sub(2)
    assert.equal(of.task, files.own(dirs.of(up .. base .. "/state", "a110c", "web"), "local"))
  end)

  describe("for an image archive", function()
    local function put(path, text)
      local file <close> = assert(io.open(path, "w"))
      file:write(text)
    end

    for path, there in pairs { ["image.tar"] = "task", ["/local/image.tar"] = "task", ["/alloc/image.tar"] = "alloc" } do
      it(("'%s' is read from the task's directories"):format(path), function()
        put(of[there] .. "/image.tar", "an archive")
        local read, file = files.open_archive(of, path)
        local _ <close> = file
        assert.equal("an archive", assert(read)())
        assert.is_nil(read())
      end)
    end

    for what, make in pairs {
      ["a link out of them"] = function(path) link(base .. "/host", path) end,
      ["a directory"] = function(path) assert(uv.fs_mkdir(path, 511)) end,
      ["a pipe that nobody writes to"] = function(path) assert(os.execute("mkfifo " .. path)) end,
      ["nothing"] = function() end,
    } do
      it("is refused where there is " .. what, function()
        make(of.task .. "/image.tar")
        local read, err = files.open_archive(of, "image.tar")
        assert.is_nil(read)
        assert.equal("invalid", err.kind)
      end)
    end

    it("is refused outside of them, as text already", function()
      for _, path in ipairs { "../../../../image.tar", "/alloc/../../x", "/etc/image.tar", "/local/../../../x" } do
        assert.is_false(files.is_archive(of, path), path)
        assert.is_nil((files.open_archive(of, path)))
      end
    end)
  end)

  it("carries the agent's SELinux label, where there is one", function()
    local set = options.new()
    set["docker.volumes.selinuxlabel"] = "z"
    local body = assert(driver.body({
      job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {}, dirs = of,
      task = { name = "web", config = { image = "x", network_mode = "bridge", volumes = { "local:/a", "local:/b:ro" } },
        resources = { cpu = 100, memory = 32 } },
    }, set))
    assert.same({
      of.alloc .. ":/alloc:z", of.task .. ":/local:z", of.task .. ":/a:z", of.task .. ":/b:ro,z",
    }, body.HostConfig.Binds)
  end)

  it("cannot be had where the engine is on another host, and it is relative", function()
    local body, err = driver.body {
      job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {},
      task = { name = "web", config = { image = "x", network_mode = "bridge", volumes = { "local:/a" } },
        resources = { cpu = 100, memory = 32 } },
    }
    assert.is_nil(body)
    assert.truthy(tostring(err):find("config.volumes[1]", 1, true), tostring(err))
  end)
end)

describe("a running task", function()
  local endpoint, engine

  setup(function() engine, endpoint = engines.ready() end)

  -- A task that leaves something in /alloc/data, and then one that binds it.
  local function two(name, first, config, command)
    return ([[
local function one(name, command, more)
  more.driver, more.kill_timeout, more.resources = "docker", 1, { memory = 32 }
  more.config = more.config or {}
  more.config.image, more.config.command, more.config.args = "busybox:1", "sh", { "-c", command }
  return task(name)(more)
end
return job %q { type = "batch", group "g" { restart = { attempts = 0 },
  one("first", %q, { lifecycle = { hook = "prestart" } }),
  one("second", %q, { config = { %s } }),
} }]]):format(name, first, command, config)
  end

  it("cannot get out of its directories by a link that another left", function()
    local name = jobs.unique "link"
    local result = jobs.run(endpoint, two(name, "ln -s / /alloc/data/out", "volumes = { '../alloc/data/out:/host' }", "ls /host"))
    assert.equal(1, result.code)
    assert.truthy(result.by.failed.message:find "config.volumes%[1%]: .*leads out of the task's directories", result.by.failed.message)
    assert.same({}, jobs.containers(engine, name))
  end)

  it("binds what another left within them", function()
    local result = jobs.run(endpoint, two(jobs.unique "bind", "echo 7 >/alloc/data/n; ln -s data /alloc/link",
      "volumes = { '../alloc/link:/host' }", "exit $(cat /host/n)"))
    assert.equal(7, result.by.exited.exit_code, result.stdout)
  end)
end)
