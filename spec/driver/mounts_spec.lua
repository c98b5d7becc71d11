-- What a job can bind: its own directories, and nothing that these lead to; and what no task can rename.
local allocdir = require "dockrun.driver.allocdir"
local dockrun = require "dockrun"
local container_config = require "dockrun.driver.container_config"
local engines = require "spec.engine"
local paths = require "dockrun.driver.paths"
local jobs = require "spec.jobs"
local options = require "dockrun.options"
local bind_sources = require "dockrun.driver.bind_sources"
local process = require "spec.process"
local uv = require "luv"

describe("a path of a job", function()
  local base, of

  before_each(function()
    base = assert(uv.fs_mkdtemp(uv.os_tmpdir() .. "/dockrun-XXXXXX"))
    of = allocdir.of(base .. "/state", "a110c", "web")
    assert(allocdir.make(of))
    assert(allocdir.make(allocdir.of(base .. "/state", "a110c", "other")))
    assert(uv.fs_mkdir(base .. "/host", 511))
  end)

  after_each(function() process.run({ "-rf", base }, { program = "rm" }) end)

  local function link(target, path) assert(uv.fs_symlink(target, path)) end

  -- The place that a path becomes, and where the engine finds it, below the allocation's root.
  local function place_of(path, dirs_of_task)
    local found <close> = assert(bind_sources.open(dirs_of_task or of))
    local place, err = found:make(path)
    if not place then return nil, err end
    return place, found:path(place):sub(#assert(uv.fs_realpath((dirs_of_task or of).root)) + 1)
  end

  local function put(path, text)
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
  end

  local function text_of(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end

  for path, there in pairs {
    ["local"] = "/web/local", ["./local/../local"] = "/web/local", ["."] = "/.places/1/web", ["../alloc"] = "/alloc",
    ["local/data"] = "/.places/3/web/local/data", ["../alloc/data"] = "/.places/2/alloc/data", ["new/er"] = "/.places/3/web/new/er",
  } do
    it(("'%s' is at %s, which no task sees from outside"):format(path, there), function()
      local _, at = place_of(path)
      assert.equal(there, at)
      assert.equal("directory", assert(uv.fs_lstat(of.root .. there)).type)
    end)
  end

  for _, path in ipairs {
    "..", "../..", "../other", "../other/local", "../web2", "local/../../../..", "/", "/etc", "/alloc", "../allocx",
  } do
    it(("'%s' is none of the task's"):format(path), function()
      assert.is_false(paths.is_own(of, path))
      local found, err = place_of(path)
      assert.is_nil(found)
      assert.equal("invalid", err.kind)
    end)
  end

  it("may be absolute, if it is the task's", function()
    assert.equal("alloc/data", (place_of(of.alloc .. "/data")))
  end)

  it("is what a link within the directories leads to", function()
    link("../../alloc/data", of.task .. "/shared")
    assert.equal("alloc/data/x", (place_of "local/shared/x"))
    assert.equal("alloc/data/x", (place_of "local/shared/x"))
    link("y", of.alloc .. "/../.places/2/alloc/data/link")
    assert(uv.fs_mkdir(of.root .. "/.places/2/alloc/data/y", 511))
    assert.equal("alloc/data/y", (place_of "../alloc/data/link"))
  end)

  for what, target in pairs { ["out of them"] = "host", ["to another task"] = "state/alloc/a110c/other/local", ["to nothing"] = "gone" } do
    it("is refused if a link leads " .. what, function()
      link(base .. "/" .. target, of.task .. "/link")
      assert.is_nil((place_of "local/link"))
      assert.is_nil((place_of "local/link/below"))
    end)
  end

  it("is refused if a relative link leads to another task, or above all", function()
    link("../../other/local", of.task .. "/other")
    link("../../../../..", of.task .. "/up")
    for _, path in ipairs { "local/other", "local/other/x", "local/up", "local/up/etc" } do assert.is_nil((place_of(path)), path) end
  end)

  it("is refused if a link took the place of /local itself", function()
    assert(uv.fs_rename(of.task, base .. "/moved"))
    link(base .. "/host", of.task)
    assert.is_nil((place_of "local/x"))
    assert.is_nil((allocdir.make(of)))
    assert.is_nil((uv.fs_lstat(base .. "/host/x")))
  end)

  it("may be below a state directory that is a link, or is relative", function()
    link(base .. "/state", base .. "/linked")
    local up = uv.cwd():gsub("[^/]+", ".."):sub(2)
    for _, state in ipairs { base .. "/linked", up .. base .. "/state" } do
      local _, at = place_of("local/x", allocdir.of(state, "a110c", "web"))
      assert.equal("/.places/3/web/local/x", at)
    end
  end)

  it("has what was there before, a file too", function()
    put(of.task .. "/conf", "text")
    assert(uv.fs_mkdir(of.alloc .. "/data/old", 511))
    put(of.alloc .. "/data/old/n", "7")
    place_of "local/conf"
    place_of "../alloc/data/old"
    assert.equal("text", text_of(of.root .. "/.places/3/web/local/conf"))
    assert.equal("7", text_of(of.root .. "/.places/3/alloc/data/old/n"))
    assert.equal("file", uv.fs_lstat(of.task .. "/conf").type)  -- to be mounted on
    assert.equal("directory", uv.fs_lstat(of.root .. "/.places/2/alloc/data/old").type)
  end)

  it("that is the task's directory has what was there, and local/ where it was", function()
    put(of.root .. "/web/conf", "text")
    put(of.task .. "/conf", "local")
    for _ = 1, 2 do place_of "." end
    assert.equal("text", text_of(of.root .. "/.places/1/web/conf"))
    assert.equal("local", text_of(of.task .. "/conf"))
    place_of "conf"
    assert.equal("text", text_of(of.root .. "/.places/2/web/conf"))
    assert.equal("directory", uv.fs_lstat(of.root .. "/.places/1/web/local").type)
    assert.equal(511, uv.fs_lstat(of.root .. "/.places/1/web").mode & 511)  -- any user of the container may write
  end)

  it("has what is written there from outside later", function()
    put(of.task .. "/conf", "old")
    place_of "local/conf"
    place_of "local/data"
    put(of.task .. "/conf", "new")
    put(of.task .. "/data/n", "7")
    place_of "local/conf"
    place_of "local/data"
    assert.equal("new", text_of(of.root .. "/.places/3/web/local/conf"))
    assert.equal("7", text_of(of.root .. "/.places/3/web/local/data/n"))
  end)

  for what, replace in pairs {
    ["a link"] = function(path) link(base .. "/host", path) end, ["a file"] = function(path) put(path, "x") end,
    ["a pipe"] = function(path) assert(os.execute("mkfifo " .. path)) end, ["nothing"] = function() end,
  } do
    it("is a mountpoint again if a task of another time put " .. what .. " in its place", function()
      place_of "local/data/x"
      assert(uv.fs_rename(of.task .. "/data", of.task .. "/away"))
      replace(of.task .. "/data")
      place_of "local/data/x"
      assert.equal("directory", uv.fs_lstat(of.task .. "/data").type)
      assert.is_nil((uv.fs_lstat(base .. "/host/x")))
    end)
  end

  it("is a mountpoint again without a walk through what a task put in its place, and other work goes on meanwhile", function()
    put(of.task .. "/file", "text")
    place_of "local/file"
    place_of "local/data"
    assert(os.remove(of.task .. "/file"))
    for _, name in ipairs { "file", "file/deep" } do assert(uv.fs_mkdir(of.task .. "/" .. name, 511)) end
    for i = 1, 200 do put(of.task .. "/data/" .. i, "x") end
    local turns, done = 0, false
    local other = dockrun.spawn(function()
      while not done do
        turns = turns + 1
        dockrun.sleep(0)
      end
    end)
    place_of "local/data"
    place_of "local/file"
    done = true
    other:join()
    assert.equal("x", text_of(of.root .. "/.places/3/web/local/data/200"))
    assert.equal("file", uv.fs_lstat(of.task .. "/file").type)
    assert.is_true(turns > 2, turns .. " turns")
    local entries = uv.fs_scandir(of.root .. "/.replaced")
    local replaced = uv.fs_scandir_next(entries)
    assert.is_nil(uv.fs_scandir_next(entries))  -- libuv frees the last entry only then
    assert.equal("directory", uv.fs_lstat(of.root .. "/.replaced/" .. replaced .. "/deep").type)
  end)

  it("belongs to the task alone, even if the task is called 'alloc'", function()
    local alloc = allocdir.of(base .. "/state", "a110c", "alloc")
    assert(allocdir.make(alloc))
    assert.is_nil((uv.fs_lstat(of.alloc .. "/local")))
    local _, at = place_of("local/x", alloc)
    assert.equal("/.places/3/.alloc/local/x", at)
    assert.is_nil((place_of "../.alloc/local"))
  end)

  -- What two tasks of a group bind, by source and target.
  local function bound(config, task, tasks)
    local body = assert(container_config.body({
      job = { name = "j" }, group = { name = "g", tasks = tasks or {} }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {},
      dirs = allocdir.of(base .. "/state", "a110c", task),
      resolved = { name = task, config = config, kill_timeout = 5, resources = { cpu = 100, memory = 32 } },
    }, options.new()))
    local list = {}
    for _, one in ipairs(body.HostConfig.Mounts) do
      if one.Type == "bind" then list[one.Target] = one.Source:sub(#of.root + 1) .. (one.ReadOnly and " ro" or "") end
    end
    for _, text in ipairs(body.HostConfig.Binds) do
      local source, target, mode = text:match "^([^:]+):([^:]+):?(.*)$"
      list[target] = source:sub(#of.root + 1) .. (mode ~= "" and " " .. mode or "")
    end
    return list
  end

  it("is bound at its place in every task that sees that, and at its target", function()
    local web = { image = "x", network_mode = "bridge", volumes = { "local/conf:/etc/x:ro", "../alloc/data/x:/x" },
      mount = { { type = "bind", source = "../alloc/data", target = "/data", readonly = true } } }
    local other = { image = "x", network_mode = "bridge" }
    local tasks = { { name = "web", config = web }, { name = "other", config = other } }
    local data, x = "/.places/2/alloc/data", "/.places/3/alloc/data/x"
    assert.same({
      ["/alloc"] = "/alloc", ["/alloc/data"] = data, ["/alloc/data/x"] = x, ["/local"] = "/other/local",
    }, bound(other, "other", tasks))
    assert.same({
      ["/alloc"] = "/alloc", ["/alloc/data"] = data, ["/alloc/data/x"] = x, ["/local"] = "/web/local",
      ["/local/conf"] = "/.places/3/web/local/conf", ["/etc/x"] = "/.places/3/web/local/conf ro",
      ["/x"] = x, ["/data"] = data .. " ro", ["/data/x"] = x .. " ro",
    }, bound(web, "web", tasks))
  end)

  it("is never in another that the engine gets: a task that can rename its mountpoints gets nothing by it", function()
    local web = { image = "x", network_mode = "bridge",
      volumes = { ".:/home", "conf:/conf", "local/a/b:/b", "local/a:/a", "../alloc:/all", "../alloc/data/x:/x", "../alloc/data:/data" } }
    local sources = {}
    for target, source in pairs(bound(web, "web")) do
      sources[#sources + 1] = source
      if target:find "^/home" then assert.equal("/home" .. source:match "web(.*)$", target) end
    end
    for _, one in ipairs(sources) do
      for _, other in ipairs(sources) do assert.is_true(one == other or not paths.within(one, other), one .. " is in " .. other) end
    end
  end)

  it("is also where a task mounts something in what it binds: no other task can put a link there", function()
    put(of.task .. "/f", "text")
    local web = { image = "x", network_mode = "bridge", volumes = { "local/f:/alloc/sub/f", "../alloc/data:/data" },
      mount = { { type = "tmpfs", target = "/data/tmp" }, { type = "volume", target = "/local/v" } } }
    local data, f, tmp = "/.places/2/alloc/data", "/.places/3/alloc/sub/f", "/.places/3/alloc/data/tmp"
    assert.same({
      ["/alloc"] = "/alloc", ["/alloc/sub"] = "/.places/2/alloc/sub", ["/alloc/sub/f"] = f, ["/alloc/data"] = data,
      ["/alloc/data/tmp"] = tmp, ["/local"] = "/other/local",
    }, bound({ image = "x", network_mode = "bridge" }, "other", { { name = "web", config = web } }))
    assert.same({ "file", "directory" }, { uv.fs_lstat(of.root .. f).type, uv.fs_lstat(of.root .. tmp).type })
    assert.same({
      ["/alloc"] = "/alloc", ["/alloc/sub"] = "/.places/2/alloc/sub", ["/alloc/sub/f"] = "/.places/3/web/local/f",
      ["/alloc/data"] = data, ["/alloc/data/tmp"] = tmp, ["/data"] = data, ["/local"] = "/web/local",
      ["/local/f"] = "/.places/3/web/local/f",
    }, bound(web, "web"))
    assert.equal("directory", uv.fs_lstat(of.root .. "/.places/3/web/local/v").type)
    assert.equal("file", uv.fs_lstat(of.root .. "/.places/2/alloc/sub/f").type)
  end)

  it("is not bound at its place in a task that ends before the others begin, nor if that has something else there", function()
    local web = { image = "x", network_mode = "bridge", volumes = { "../alloc/data/x:/x" } }
    local other = { image = "x", network_mode = "bridge" }
    local first = { name = "other", config = other, lifecycle = { hook = "prestart" } }
    local body = assert(container_config.body({
      job = { name = "j" }, group = { name = "g", tasks = { { name = "web", config = web }, first } }, ports = {}, env = {},
      alloc = { id = "a110c", index = 0 }, dirs = allocdir.of(base .. "/state", "a110c", "other"),
      resolved = { name = "other", config = other, lifecycle = first.lifecycle, kill_timeout = 5, resources = { cpu = 100, memory = 32 } },
    }, options.new()))
    assert.equal(3, #body.HostConfig.Mounts)
    local own = { image = "x", network_mode = "bridge", volumes = { "local:/a", "local/b:/a/b", "local/c:/c" },
      mount = { { type = "tmpfs", target = "/a/c" } } }
    assert.same({
      ["/alloc"] = "/alloc", ["/local"] = "/web/local", ["/local/b"] = "/.places/3/web/local/b",
      ["/local/c"] = "/.places/3/web/local/c", ["/c"] = "/.places/3/web/local/c",
      ["/a"] = "/web/local", ["/a/b"] = "/.places/3/web/local/b",
    }, bound(own, "web"))
  end)

  for what, volumes in pairs {
    ["is too deep"] = function() return { "local/" .. ("a/"):rep(2000) .. "x:/x" } end,
    ["is bound too often"] = function()
      local list = {}
      for i = 1, 40 do list[#list + 1] = ("local/a:/x%d"):format(i) end
      for i = 1, 40 do list[#list + 1] = ("local/a/%d:/y%d"):format(i, i) end
      return list
    end,
    ["is one of too many"] = function()
      local list = {}
      for i = 1, 2000 do list[i] = ("local/%d:/%d"):format(i, i) end
      return list
    end,
  } do
    it("is refused at once if it " .. what, function()
      local body, err = container_config.body({
        job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {}, dirs = of,
        resolved = { name = "web", config = { image = "x", network_mode = "bridge", volumes = volumes() }, kill_timeout = 5,
          resources = { cpu = 100, memory = 32 } },
      }, options.new())
      assert.is_nil(body)
      assert.truthy(tostring(err):find "more than %d+ [dm]")
    end)
  end

  it("carries the agent's SELinux label, if there is one", function()
    local set = options.new()
    set["docker.volumes.selinuxlabel"] = "z"
    local body = assert(container_config.body({
      job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {}, dirs = of,
      resolved = { name = "web", config = { image = "x", network_mode = "bridge", volumes = { "local:/a", "local:/b:ro" } },
        kill_timeout = 5, resources = { cpu = 100, memory = 32 } },
    }, set))
    assert.same({
      of.alloc .. ":/alloc:z", of.task .. ":/local:z", of.task .. ":/a:z", of.task .. ":/b:ro,z",
    }, body.HostConfig.Binds)
  end)

  it("is refused if it is relative and the engine is on another host", function()
    local body, err = container_config.body({
      job = { name = "j" }, group = { name = "g" }, alloc = { id = "a110c", index = 0 }, ports = {}, env = {},
      resolved = { name = "web", config = { image = "x", network_mode = "bridge", volumes = { "local:/a" } },
        kill_timeout = 5, resources = { cpu = 100, memory = 32 } },
    }, options.new())
    assert.is_nil(body)
    assert.truthy(tostring(err):find("config.volumes[1]", 1, true), tostring(err))
  end)
end)

describe("a running task", function()
  local endpoint, engine

  setup(function() engine, endpoint = engines.ready() end)

  -- A job of tasks made by one(name, shell command, more fields).
  local function job(name, tasks)
    return ([[
local function one(name, command, more)
  more.driver, more.kill_timeout, more.resources = "docker", 1, { memory = 32 }
  more.config = more.config or {}
  more.config.image, more.config.command, more.config.args = "busybox:1", "sh", { "-c", command }
  return task(name)(more)
end
return job %q { type = "batch", group "g" { restart = { attempts = 0 },
  %s
} }]]):format(name, tasks)
  end

  -- A task that leaves something in /alloc/data, and then one that binds it.
  local function two(name, first, config, command)
    return job(name, ([[
      one("first", %q, { lifecycle = { hook = "prestart" } }),
      one("second", %q, { config = { %s } }),]]):format(first, command, config))
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

  it("shares what no other task could know of from the other's next start on, and says so", function()
    local result = jobs.run(endpoint, job(jobs.unique "moved", [[
      one("first", "sleep 600", { lifecycle = { hook = "prestart", sidecar = true } }),
      one("second", "touch /x/n && ls /alloc/data/0/n",
        { config = { volumes = { "../alloc/data/${NOMAD_ALLOC_INDEX}:/x" } } }),]]))
    assert.equal(0, result.code)
    assert.matches("task 'g.second': /alloc/data/0 will be shared with task 'first' when that task starts again", result.stderr, 1, true)
  end)
end)
