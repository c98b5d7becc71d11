-- Files that a job names: which of the host's it may have read, and that reading none of them holds anything up.
local allocdir = require "dockrun.driver.allocdir"
local container_config = require "dockrun.driver.container_config"
local engines = require "spec.engine"
local job_files = require "dockrun.driver.job_files"
local jobs = require "spec.jobs"
local options = require "dockrun.options"
local bind_sources = require "dockrun.driver.bind_sources"
local policy = require "dockrun.driver.policy"
local process = require "spec.process"
local uv = require "luv"

describe("a file that a job names", function()
  local base, of, set

  local function put(path, text)
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
  end

  before_each(function()
    base = assert(uv.fs_realpath(assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))))
    of = allocdir.of(base .. "/state", "a110c", "web")
    assert(allocdir.make(of))
    for _, name in ipairs { "allowed", "allowed/sub", "secret" } do assert(uv.fs_mkdir(base .. "/" .. name, 493)) end
    put(base .. "/secret/there", "{}")
    set = options.new()
    assert(options.set(set, "job_files", { base .. "/allowed" }))
  end)

  after_each(function() process.run({ "-rf", base }, { program = "rm" }) end)

  for path, there in pairs {
    ["f"] = "web/local/f", ["/local/f"] = "web/local/f", ["/alloc/f"] = "alloc/f", ["/alloc/data/../f"] = "alloc/f",
  } do
    it(("is read from the task's own directories as '%s'"):format(path), function()
      put(of.root .. "/" .. there, "text")
      assert.equal("text", job_files.read(of, path, set, 100))
      assert.is_true(job_files.is_allowed(of, path, set))
      assert.is_true(job_files.is_allowed(of, path, options.new()))
    end)
  end

  it("is read from a place", function()
    put(of.task .. "/f", "text")
    local found <close> = assert(bind_sources.open(of))
    assert(found:make "local/f")
    assert.equal("text", job_files.read(of, "f", set, 100))
  end)

  it("is read below a directory that the agent allows, by an engine elsewhere too", function()
    put(base .. "/allowed/sub/f", "text")
    assert(uv.fs_symlink("sub/f", base .. "/allowed/link"))
    for _, own in ipairs { of, false } do
      assert.equal("text", job_files.read(own or nil, base .. "/allowed/sub/f", set, 100))
      assert.equal("text", job_files.read(own or nil, base .. "/allowed/./link", set, 100))
    end
  end)

  it("is refused elsewhere, in the same words whether it is there or not", function()
    for _, path in ipairs {
      "%s/secret/there", "%s/secret/absent", "%s/allowed/../secret/there", "%s/allowed2/x", "%s/allowe", "/etc/passwd",
    } do
      path = path:format(base)
      assert.is_false(job_files.is_allowed(of, path, set))
      local text, err = job_files.read(of, path, set, 100)
      assert.is_nil(text)
      assert.equal(("'%s' is neither in the task's own directories nor in the agent's job_files"):format(path), err.message)
    end
  end)

  it("is refused if a link leads there, in the same words whether it is there or not", function()
    for _, name in ipairs { "there", "absent" } do
      assert(uv.fs_symlink("../secret/" .. name, base .. "/allowed/" .. name))
      assert(uv.fs_symlink("../../../../../secret/" .. name, of.task .. "/" .. name))
      for _, path in ipairs { base .. "/allowed/" .. name, "/local/" .. name } do
        local text, err = job_files.read(of, path, set, 100)
        assert.is_nil(text)
        assert.equal(("cannot open '%s': it leads out of its directory"):format(path), err.message)
      end
    end
  end)

  for what, make in pairs {
    ["a pipe that nobody writes to"] = "mkfifo f", ["a directory"] = "mkdir f", ["a device"] = "mknod f c 1 5 || mkfifo f",
    ["a link to a device"] = "ln -s /dev/zero f",
  } do
    it("is refused at once if it is " .. what, function()
      assert.equal(0, process.run({ "-c", make }, { program = "sh", cwd = of.task }).code)
      local read, err = job_files.open(of, "f", set)
      assert.is_nil(read)
      assert.equal("invalid", err.kind)
      assert.truthy(err.message:find "^cannot open 'f': it ", err.message)
    end)
  end

  it("has a size limit", function()
    put(of.task .. "/f", ("x"):rep(101))
    local text, err = job_files.read(of, "f", set, 100)
    assert.is_nil(text)
    assert.equal("cannot read 'f': it is larger than 100 bytes", err.message)
  end)

  it("is read piece by piece to the size that it had when it was opened", function()
    put(of.task .. "/f", ("x"):rep(300000))
    local read, file = job_files.open(of, "f", set)
    local _ <close> = file
    assert.equal(256 * 1024, #read())
    local more <close> = assert(io.open(of.task .. "/f", "a"))
    more:write "more"
    more:flush()
    assert.same({ 300000 - 256 * 1024 }, { #read(), read() })
  end)

  local function body(profile)
    return container_config.body({
      job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {}, dirs = of,
      resolved = { name = "web", config = { image = "x", network_mode = "bridge", security_opt = { profile } },
        kill_timeout = 5, resources = { cpu = 100, memory = 32 } },
    }, set)
  end

  it("may be a seccomp profile, which the engine gets itself", function()
    put(base .. "/allowed/p.json", '{"defaultAction":"SCMP_ACT_ALLOW"}')
    put(of.task .. "/text", "root:x:0:0")
    assert.same({ 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}' },
      assert(body("seccomp=" .. base .. "/allowed/p.json")).HostConfig.SecurityOpt)
    assert.same({ "seccomp=unconfined" }, assert(body "seccomp=unconfined").HostConfig.SecurityOpt)
    for _, path in ipairs { "text", "/etc/hosts", base .. "/secret/there" } do
      local found, err = body("seccomp=" .. path)
      assert.is_nil(found)
      assert.truthy(err.message:find "^config.security_opt: " and not err.message:find "root:x", err.message)
    end
  end)

  it("is refused when a job is planned, by the text of its path", function()
    local task = { name = "web", config = { image = "x", network_mode = "bridge", resources = {},
      security_opt = { "no-new-privileges", "seccomp=/root/x.json", "seccomp:/dev/zero", "seccomp=p.json" }, load = "/etc/x.tar" } }
    local _, err = policy.check(task, set)
    local paths = {}
    for _, problem in ipairs(err.list) do paths[#paths + 1] = problem.path end
    assert.same({ "task.web.config.load", "task.web.config.security_opt[2]", "task.web.config.security_opt[3]" }, paths)
  end)

  it("that is a pipe neither hangs `run` nor what else it does", function()
    local _, endpoint = engines.ready()
    local pipe = base .. "/allowed/pipe"
    assert.equal(0, process.run({ pipe }, { program = "mkfifo" }).code)
    local result = jobs.run(endpoint, jobs.text {
      name = jobs.unique "pipe", image = "busybox:1", command = "true", config = ("security_opt = { 'seccomp=%s' },"):format(pipe),
    }, { "--set", "job_files=" .. base .. "/allowed" })
    assert.equal(1, result.code)
    assert.equal(("config.security_opt: the seccomp profile: cannot open '%s': it is not a regular file"):format(pipe),
      result.by.failed.message)
  end)
end)
